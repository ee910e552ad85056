#ifndef QUIVER_ENGINE_SCHEDULE_SCHEDULER_H_
#define QUIVER_ENGINE_SCHEDULE_SCHEDULER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/run/backend.h"
#include "engine/schedule/cost_model.h"
#include "engine/schedule/embed_task.h"

namespace quiver {

// Where a task was when it was given up without a vector; kTokenizing is before it is one, which is
// for whoever tokenizes to say.
enum class DropPoint : uint8_t { kTokenizing, kAdmission, kQueue, kRunning };
inline constexpr int kNumDropPoints = 4;

// One pass, after its end.
struct BatchReport : BatchShape {
  Lane lane = Lane::kInteractive;
  // Time on the device, and what the cost model had said; the latter is zero before the first pass.
  absl::Duration duration;
  absl::Duration predicted;
  // What it would have taken as a part of a full batch (CostModel::PredictShareUs): how much of
  // what the device can do it was. Zero before the first pass.
  absl::Duration share;
  // How long the device stood still before it since the end of the pass before; absent if there was
  // nothing to do meanwhile.
  std::optional<absl::Duration> gap;
  // How many times another pass ran between two of its steps.
  int overtaken = 0;
  // Sequences whose first tokens were not computed, as their keys and values were there, and how
  // many those were; not among `tokens`.
  int prefix_hits = 0;
  int64_t prefix_tokens = 0;
  // False if the pass failed as a whole.
  bool ok = true;
};

// Told of what the scheduler does, for metrics. Called on any thread that calls the scheduler, or
// on its own; must be quick and thread-safe, and must not call the scheduler.
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;
  virtual void OnBatch(const BatchReport& report) = 0;
  // A task was taken that is equal to one that waits or runs, and is computed with it.
  virtual void OnJoined(Lane lane) = 0;
  // A task was refused at the door or given up later: CANCELLED, DEADLINE_EXCEEDED,
  // RESOURCE_EXHAUSTED, UNAVAILABLE.
  virtual void OnDropped(Lane lane, DropPoint where, absl::StatusCode code) = 0;
};

// What is waiting and running now.
struct QueueSnapshot {
  // A tenant's sequences that wait; those that others wait for as well count for the first.
  struct TenantState {
    std::string name;
    int64_t sequences = 0;
    int64_t tokens = 0;
  };
  // As many tenants of a lane are shown.
  static constexpr int kTenantsShown = 20;
  struct LaneState {
    int64_t tasks = 0;
    int64_t tokens = 0;
    int tenants = 0;
    absl::Duration oldest_age;
    // How long a task without a deadline that came now would wait, were nothing to come after it.
    absl::Duration predicted_wait;
    // Those with the most tokens, the most first.
    std::vector<TenantState> largest_tenants;
  };
  struct PassState {
    Lane lane = Lane::kInteractive;
    int tasks = 0;
    int sequences = 0;
    int tokens = 0;
    // Since it began; time on the device so far; what the cost model says of the whole.
    absl::Duration age;
    absl::Duration device_time;
    absl::Duration predicted;
    int overtaken = 0;
  };
  LaneState lanes[kNumLanes];
  // At most two.
  std::vector<PassState> passes;
  // Tasks of the passes and of those that are complete and not answered yet; tokens of the passes.
  int running_tasks = 0;
  int running_tokens = 0;
  bool draining = false;
  CostModel cost_model;
};

// Queues tasks and runs them on a backend in batches that are sealed at the moment the device can
// take them. A thread of its own drives the backend; a second prepares the next batch near the end
// of a pass, a third answers tasks, so that the device waits for neither. All methods are
// thread-safe.
//
// - Interactive work overtakes a running bulk pass between two of its steps; bulk work keeps its
//   share of the device while both have work, and all of it otherwise.
// - Within a lane tenants get equal parts by tokens. Within a tenant the earliest deadline goes
//   first; a task without one counts as due kPatience after it came.
// - Tasks with equal ids and output that wait or run in the same lane are computed once, when the
//   first of their tenants' turns comes.
// - What is known to begin like others, by token ids, is computed from where it differs, if the
//   backend keeps prefixes; all that is counted in tokens here counts those to compute alone.
// - A pass that fails is run again in halves until the sequences at fault stand alone, so that only
//   they fail. A backend that throws is one that fails. If its device is lost, by its own word or
//   as a call of it takes far too long, all is failed with UNAVAILABLE, which is worth a try at
//   another server. One that never returns from a call holds a scheduler's thread: Drain still
//   fails every task by its deadline, the destructor waits.
class Scheduler {
 public:
  // What a task without a deadline counts as, for the order of a tenant's tasks.
  static constexpr absl::Duration kPatience = absl::Seconds(10);

  struct Options {
    // Tokens and tasks that may wait in each lane; beyond that Submit refuses. A lane that is empty
    // takes a task of any size, so that nothing is refused forever. A tenant that holds less than a
    // sixteenth of a lane is still taken up to 5/4 of these, so that one backlog does not shut the
    // door on everybody else. A task equal to one that waits or runs takes no tokens; those who
    // join running ones are held to the bound of tasks as well.
    int64_t max_queued_tokens = 4'000'000;
    int64_t max_queued_tasks = 100'000;
    // Tokens of a batch; 0 for the backend's own limit.
    int max_batch_tokens = 0;
    // A batch of several sequences is predicted to take no longer than this, so that batches of
    // long inputs do not hold up short ones; eight times a pass's fixed cost if that is more.
    absl::Duration interactive_batch_time = absl::Milliseconds(20);
    absl::Duration bulk_batch_time = absl::Milliseconds(250);
    // Part of the device's time that bulk work gets while interactive work is waiting, in [0, 1].
    double bulk_share = 0.10;
    // Longest stretch of a pass between two looks at the interactive queue, in microseconds.
    int64_t step_budget_us = 2'000;
    // What is known of the device's speed beforehand, such as from WarmUp.
    CostModel cost_model = {};
    // Beginnings of sequences that the backend is to have keys and values of from the start, if it
    // keeps any. Others are found as they repeat.
    std::vector<std::vector<TokenId>> prefixes = {};
    // Called once if the device is lost (Backend::CheckDevice, BackendInfo::longest_call), with
    // why; by then everything that was accepted is failed with UNAVAILABLE, and nothing is accepted
    // any more. On a thread of the scheduler's: must be quick and must not call the scheduler.
    std::function<void(const absl::Status&)> on_device_lost = nullptr;
  };

  // `backend` and `observer` (may be null) must outlive the scheduler.
  static absl::StatusOr<std::unique_ptr<Scheduler>> Create(Options options, Backend* backend,
                                                           SchedulerObserver* observer);
  // Fails what is queued with UNAVAILABLE, lets the running passes end, and joins the threads.
  virtual ~Scheduler() = default;

  // Takes the task if and only if OK is returned; its `done` is then called exactly once, whatever
  // happens. Otherwise the task is left untouched: RESOURCE_EXHAUSTED with a payload that says how
  // long to wait (RetryDelay below), UNAVAILABLE while draining, DEADLINE_EXCEEDED if the deadline
  // has passed or would before what is ahead of the task is done, INVALID_ARGUMENT for a task that
  // breaks EmbedTask's contract.
  virtual absl::Status Submit(EmbedTask&& task) = 0;
  // The same for each of them in order, which costs less: their answers.
  virtual std::vector<absl::Status> SubmitMany(absl::Span<EmbedTask> tasks) = 0;

  // Takes no more tasks, and waits until all accepted ones are done or `deadline` passes; what is
  // left then, running or not, is failed with UNAVAILABLE. Returns whether nothing was left.
  virtual bool Drain(absl::Time deadline) = 0;

  virtual QueueSnapshot Snapshot() const = 0;
};

// The wait attached to a RESOURCE_EXHAUSTED or UNAVAILABLE status of the engine, or zero if there
// is none.
absl::Duration RetryDelay(const absl::Status& status);
void SetRetryDelay(absl::Status* status, absl::Duration delay);

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_SCHEDULER_H_
