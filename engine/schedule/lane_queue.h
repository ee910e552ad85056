#ifndef QUIVER_ENGINE_SCHEDULE_LANE_QUEUE_H_
#define QUIVER_ENGINE_SCHEDULE_LANE_QUEUE_H_

#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/schedule/cost_model.h"
#include "engine/schedule/job.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/tenant_queue.h"

namespace quiver {

// The waiting jobs of one lane: how many it takes, which are equal, in which order they go, which
// nobody wants any more. Also ends the jobs that it gave out. Every task it took is answered by one
// Completion, in the list that it was made with. Not thread-safe.
class LaneQueue {
 public:
  // What a batch may hold. Its first sequence is exempt, but for `most_tokens`.
  struct Budget {
    int64_t tokens = 0;
    int sequences = 0;
    double us = 0;
    int64_t most_tokens = std::numeric_limits<int64_t>::max();
    // What the batch holds already; none of the sequences is then exempt.
    CostModel::Work taken = {};
  };

  // Jobs without a deadline may be passed over, in the bulk lane, by smaller ones behind them that
  // still fit a batch; after this many times the others of the tenant wait.
  static constexpr int kMaxSkips = 3;

  // `observer` may be null; all must outlive the queue.
  LaneQueue(Lane lane, const Scheduler::Options& options, SchedulerObserver* observer,
            std::vector<Completion>* completions);
  // Must be empty, with no job given out.
  ~LaneQueue();

  // Where a task would go: to `equal`, if there is an equal job to join. Valid until the queue
  // changes.
  struct Place {
    uint64_t hash = 0;
    Job* equal = nullptr;
    // Tokens to compute for it.
    int64_t tokens = 0;

    bool running() const { return equal != nullptr && equal->state == Job::State::kRunning; }
  };
  // `hash` is HashOf(task), which needs no lock; `reused` tokens of it are not computed.
  Place Find(const EmbedTask& task, uint64_t hash, int64_t reused) const;
  static uint64_t HashOf(const EmbedTask& task);

  // Takes a task that Excess() found room for. `prefix` may be null.
  void Add(EmbedTask&& task, const Place& place, std::shared_ptr<const PrefixCache::Hold> prefix,
           int64_t now);

  // Tokens that have to leave before there is room for `task`; 0 if there is room now.
  int64_t Excess(const EmbedTask& task, const Place& place) const;

  // Tokens that go before `task`, were nothing to come later; a lower bound.
  int64_t TokensAhead(const EmbedTask& task, const Place& place, int64_t now) const;

  // Removes the next batch: jobs that are wanted, in order, as many as `budget` allows. Empty only
  // if the queue is then empty, or what comes first has more than most_tokens, or there is room for
  // nothing more beside what is taken. What is left of a failed pass comes first and alone.
  std::vector<Job*> Seal(const Budget& budget, const CostModel& cost, int64_t now);

  // Takes back jobs of a failed pass, in their order there, to be tried again in two halves.
  void Retry(const std::vector<Job*>& jobs);
  // Takes back jobs that were not run after all; they come first, as one batch if it may be.
  void PutBack(const std::vector<Job*>& jobs);
  // Whether the next batch is what was taken back.
  bool has_returned() const { return !retry_.empty(); }

  // Ends a job that Seal gave out, and that ran in a batch of this shape.
  void Finish(Job* job, absl::StatusOr<EncodedVector> result, const BatchShape& batch, int64_t now);

  // The same for one that is given up, which the observer is told of.
  void GiveUp(Job* job, const absl::Status& status, int64_t now);

  // Answers the waiters of a job that Seal gave out who cancelled or whose deadline has passed.
  // Returns false, and the job is gone, if that was the last. `where` is what the observer is told.
  bool KeepRunning(Job* job, int64_t now, DropPoint where = DropPoint::kRunning);

  // The same for up to `limit` waiting jobs; goes round all of them from call to call.
  void Sweep(int64_t now, int limit);

  // Gives up every waiting task with `status`.
  void FailAll(const absl::Status& status, int64_t now);

  bool empty() const { return tasks_ == 0; }
  int64_t tasks() const { return tasks_; }
  int64_t tokens() const { return tokens_; }
  int tenants() const { return tenants_.active(); }
  std::vector<QueueSnapshot::TenantState> LargestTenants(int most) const;
  // Submission of the job that waits the longest; kNever if empty.
  int64_t oldest() const { return oldest_ == nullptr ? kNever : oldest_->submitted; }
  // The least that Seal would give out: its first job, or what is left of a failed pass.
  CostModel::Work Head(int64_t now);

 private:
  static constexpr size_t kMinPurge = 1024;

  int64_t DueOf(const EmbedTask& task, int64_t now) const;
  void Push(Tenant* tenant, int64_t due, Job* job);
  void Join(Job* job, Waiter waiter, absl::string_view tenant, int64_t due);
  void LinkNewest(Job* job);
  void LinkOldest(Job* job);
  void Unlink(Job* job);
  // The queue has let go of one entry of `job`.
  void Release(Job* job);
  void Start(Job* job, int64_t now);
  void TakeBack(Job* job);
  void AddHalves(const std::vector<Job*>& jobs);
  // False if none is left; the job is then kDone, to be deleted when no entry refers to it.
  bool Prune(Job* job, int64_t now, DropPoint where);
  void Drop(Job* job, Waiter& waiter, const absl::Status& status, int64_t now, DropPoint where);
  // The job's waiters have been answered.
  void Retire(Job* job);
  // Sets *held, and removes nothing, if what comes first has more than `most_tokens`.
  std::vector<Job*> SealRetry(int64_t most_tokens, int64_t now, bool* held);

  const Lane lane_;
  const Scheduler::Options& options_;
  SchedulerObserver* const observer_;
  std::vector<Completion>* const completions_;

  TenantQueue tenants_;
  std::deque<std::vector<Job*>> retry_;
  absl::flat_hash_map<uint64_t, Job*> joinable_;
  uint64_t next_number_ = 0;
  // The number of entries at which the stale ones among them are looked for.
  size_t purge_at_ = kMinPurge;
  // Waiters of the waiting jobs, those among them that may go away, and the jobs' tokens.
  int64_t tasks_ = 0;
  int64_t mortal_ = 0;
  int64_t tokens_ = 0;
  // Waiters who joined running jobs.
  int64_t joined_ = 0;
  Job* oldest_ = nullptr;
  Job* newest_ = nullptr;
  Job* swept_ = nullptr;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_LANE_QUEUE_H_
