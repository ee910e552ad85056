#ifndef QUIVER_ENGINE_SCHEDULE_SCHEDULER_CORE_H_
#define QUIVER_ENGINE_SCHEDULE_SCHEDULER_CORE_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/run/backend.h"
#include "engine/schedule/cost_model.h"
#include "engine/schedule/job.h"
#include "engine/schedule/lane_queue.h"
#include "engine/schedule/prefix_cache.h"
#include "engine/schedule/scheduler.h"

namespace quiver {

// Everything that the scheduler decides, as a state machine without clock, thread or device: it is
// told what happened and when, and says what the device is to do next. Whoever drives it does that,
// reports, and delivers the completions. Not thread-safe. Times are nanoseconds since the epoch.
//
// There are two seats for passes. The back seat is for bulk passes, and for an interactive pass
// that is predicted to be long; the front seat is for interactive passes, which go first. While the
// front seat's pass runs, the back seat's stands still but for its share:
//
// - A bulk pass there is given `bulk_share` of the device's time. It is counted as a credit that
//   grows with interactive time and shrinks with bulk time while both lanes have work; bulk time
//   without interactive work pays off what is left of it. At the end of an interactive pass one
//   step's credit lets bulk run; between its steps four, so that a query that is nearly through is
//   not held up.
// - A long interactive pass there is given half, and only batches a quarter of what is left of it
//   may take the front seat.
//
// While a pass runs, the batch after it may be prepared: sealed near the pass's predicted end, so
// that the backend packs and copies it meanwhile. It is begun when its lane's turn comes, and is
// still changed then: what nobody waits for any more is taken out, and what came since put in where
// there is room.
class SchedulerCore {
 public:
  static constexpr int kFront = 0;
  static constexpr int kBack = 1;
  static constexpr int kNumSeats = 2;

  struct Action {
    enum class Kind {
      // Nothing to do until a task comes.
      kWait,
      // Call Begin with `batch` for `seat`, which is free, unless the pass that was prepared can be
      // taken. Report by Failed, or not at all.
      kBegin,
      // Run `seat`'s pass for up to `max_us`; report by Ran; if it is complete, report by Complete,
      // which frees the seat, Finish it and report by Finished; or by Failed.
      kRun,
      // Destroy `seat`'s pass: nobody waits for it any more. No report.
      kAbandon,
    };
    Kind kind = Kind::kWait;
    int seat = 0;
    PackedBatch batch;
    // Of the batch that was prepared last: it is for later, is this one, or will not be run as it
    // was.
    enum class Prepared : uint8_t { kKeep, kUse, kDiscard };
    Prepared prepared = Prepared::kKeep;
    int64_t max_us = 0;
  };

  // A batch that will follow the pass in `seat`.
  struct Preparation {
    int seat = 0;
    PackedBatch batch;
  };

  // `observer` may be null and must outlive the core.
  SchedulerCore(const Scheduler::Options& options, const BackendInfo& backend,
                SchedulerObserver* observer);
  ~SchedulerCore();

  // What is found out of a task before it is submitted, which needs no lock.
  struct Findings {
    uint64_t hash = 0;
    // May be null.
    std::shared_ptr<const PrefixCache::Hold> prefix;

    // `prefixes` may be null.
    static Findings Of(const EmbedTask& task, PrefixCache* prefixes) {
      return {LaneQueue::HashOf(task),
              prefixes == nullptr ? nullptr : prefixes->Find(task.token_ids)};
    }
  };
  // As Scheduler::Submit.
  absl::Status Submit(EmbedTask&& task, Findings findings, int64_t now);
  absl::Status Submit(EmbedTask&& task, int64_t now) {
    Findings findings = Findings::Of(task, nullptr);
    return Submit(std::move(task), std::move(findings), now);
  }

  Action Next(int64_t now);
  // `gap_ns` is how long the device stood still before, for this batch to come; below 0 if it did
  // not, or not for that.
  void Ran(int seat, int64_t spent_ns, int64_t gap_ns = -1);
  using Results = std::vector<absl::StatusOr<EncodedVector>>;
  // The pass's number, by which its results are reported, which may be after the next has begun.
  uint64_t Complete(int seat);
  void Finished(uint64_t number, absl::StatusOr<Results> results, int64_t now);
  void Failed(int seat, const absl::Status& error, int64_t now);

  // When Prepare should be called, as far as is known: kNever if not before the next kRun.
  int64_t prepare_at() const { return prepare_at_; }
  // Seals the batch after the pass that runs; nothing if none runs, one is sealed already, or
  // nothing waits that might follow it.
  std::optional<Preparation> Prepare(int64_t now);

  // From now on Submit says UNAVAILABLE.
  void StopAccepting() { draining_ = true; }
  // Answers every waiting task, or every running one, with `status`.
  void FailWaiting(const absl::Status& status, int64_t now);
  void FailRunning(const absl::Status& status, int64_t now);
  // All three.
  void Stop(const absl::Status& status, int64_t now) {
    StopAccepting();
    FailWaiting(status, now);
    FailRunning(status, now);
  }

  // The tasks answered since the last call. Whoever takes them delivers them and says so.
  std::vector<Completion> TakeCompletions();
  bool has_completions() const { return !completions_.empty(); }
  void Delivered(size_t completions) { undelivered_ -= completions; }

  // Whether the next action would be kWait.
  bool quiet() const;
  // Whether passes are complete whose results have not been reported.
  bool finishing() const { return !finishing_.empty(); }
  // Whether every accepted task has been answered and the answers delivered.
  bool idle() const;

  QueueSnapshot Snapshot(int64_t now) const;
  const CostModel& cost_model() const { return cost_; }

 private:
  struct Seat {
    // Between kBegin and the report that ends the pass, or kAbandon.
    bool taken = false;
    // Since its first kRun.
    bool running = false;
    Lane lane = Lane::kInteractive;
    // Null where nobody waits any more.
    std::vector<Job*> jobs;
    // Those that are not null.
    int wanted = 0;
    // What the pass reads and stores, whoever still waits for it.
    std::vector<std::shared_ptr<const PrefixCache::Hold>> prefixes;
    CostModel::Work work;
    int sequences = 0;
    double predicted_us = 0;
    int64_t began = 0;
    int64_t spent_ns = 0;
    int64_t gap_ns = -1;
    int overtaken = 0;

    double LeftUs() const {
      return std::max(0.0, predicted_us - static_cast<double>(spent_ns) / 1e3);
    }
  };
  // A pass that is complete.
  struct Finishing {
    uint64_t number = 0;
    Seat seat;
  };
  // A batch that was sealed ahead of its turn.
  struct Prepared {
    Lane lane = Lane::kInteractive;
    std::vector<Job*> jobs;
    CostModel::Work work;
    // Whether it takes what comes until it is begun, if there is room.
    bool open = false;
    // Whether something was taken out of it.
    bool pruned = false;
  };

  LaneQueue& lane(Lane which) { return *lanes_[static_cast<int>(which)]; }
  const LaneQueue& lane(Lane which) const { return *lanes_[static_cast<int>(which)]; }
  bool HasWork(Lane which) const;
  absl::Status CheckTask(const EmbedTask& task) const;
  absl::Status Refuse(Lane lane, absl::Status status);
  // Whether bulk work is owed `steps` steps.
  bool BulkIsOwed(int steps) const;
  bool DropUnwanted(int seat, int64_t now);
  // What a batch that is begun now may hold in all.
  int TokenLimit(bool second) const;
  bool AnySeatTaken() const { return seats_[kFront].taken || seats_[kBack].taken; }
  // What a batch of the lane may hold, beside another pass if `second`.
  LaneQueue::Budget BudgetOf(Lane lane, bool second) const;
  bool BeginInteractive(int64_t now, Action* action);
  bool BeginBulk(int64_t now, Action* action);
  // The jobs of the lane's next batch: what was prepared for it, brought up to date, or else sealed
  // now.
  std::vector<Job*> TakeBatch(Lane lane, const LaneQueue::Budget& budget, int64_t now,
                              Action::Prepared* prepared);
  // Takes out of what is prepared what nobody wants any more.
  void PrunePrepared(int64_t now);
  void PutBackPrepared();
  // Which lane's batch would begin if the running pass were at its end; false if none would.
  bool NextLane(int running, Lane* lane) const;
  void Occupy(int seat, Lane lane, std::vector<Job*> jobs, int64_t now, Action* action);
  Action Run(int seat, int64_t now);
  void Fail(Seat seat, const absl::Status& error, int64_t now);
  double InteractiveBudgetUs() const;
  double ComputeUs(double tokens) const;
  double RunningUs(Lane lane) const;
  double PredictWaitUs(Lane lane, int64_t tokens_ahead) const;
  BatchShape ShapeOf(const Seat& seat) const;
  void Report(const Seat& seat, bool ok);

  const Scheduler::Options options_;
  const BackendInfo backend_;
  const int batch_tokens_;
  SchedulerObserver* const observer_;
  std::vector<Completion> completions_;
  std::array<std::unique_ptr<LaneQueue>, kNumLanes> lanes_;
  std::array<Seat, kNumSeats> seats_;
  std::vector<Finishing> finishing_;
  uint64_t next_number_ = 0;
  std::optional<Prepared> prepared_;
  int64_t prepare_at_ = kNever;
  CostModel cost_;
  // Tokens, pairs of tokens and microseconds of passes, the older ones counting less.
  double recent_tokens_ = 0;
  double recent_pairs_ = 0;
  double recent_us_ = 0;
  // Device time that the bulk lane, and the back seat's pass if it is interactive, have missed of
  // their shares.
  double bulk_credit_us_ = 0;
  double back_credit_us_ = 0;
  size_t undelivered_ = 0;
  // The seat of the last kRun, and whether both lanes had work then.
  int last_run_ = -1;
  bool contended_ = false;
  int64_t last_sweep_ = 0;
  bool draining_ = false;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_SCHEDULER_CORE_H_
