#ifndef QUIVER_ENGINE_SCHEDULE_SCHEDULER_H_
#define QUIVER_ENGINE_SCHEDULE_SCHEDULER_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/run/backend.h"
#include "engine/schedule/embed_task.h"

namespace quiver {

// Told of what the scheduler does, for metrics. Called on the scheduler's thread or a submitter's;
// must be quick and thread-safe.
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;
  // A batch of `sequences` and `tokens` ran for `duration`; `ok` is false if the pass failed as a
  // whole.
  virtual void OnBatch(int sequences, int tokens, absl::Duration duration, bool ok) = 0;
  // A task left the queue without being computed, or was refused at the door: CANCELLED,
  // DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE.
  virtual void OnDropped(Lane lane, absl::StatusCode code) = 0;
};

// What is waiting and running now.
struct QueueSnapshot {
  struct LaneState {
    int64_t tasks = 0;
    int64_t tokens = 0;
    absl::Duration oldest_age;
  };
  LaneState lanes[kNumLanes];
  int running_tasks = 0;
  int running_tokens = 0;
};

// Queues tasks and runs them on a backend in batches that are sealed at the moment the device can
// take them. One thread of its own drives the backend. All methods are thread-safe.
class Scheduler {
 public:
  struct Options {
    // Tokens and tasks that may wait in each lane; beyond that Submit refuses. A lane that is empty
    // takes a task of any size, so that nothing is refused forever.
    int64_t max_queued_tokens = 4'000'000;
    int64_t max_queued_tasks = 100'000;
    // Tokens of a batch; 0 for the backend's own limit.
    int max_batch_tokens = 0;
    // Part of the device's tokens that bulk work gets while interactive work is waiting, in [0, 1].
    double bulk_share = 0.10;
    // Longest stretch of a pass between two looks at the interactive queue, in microseconds.
    int64_t step_budget_us = 2'000;
  };

  // `backend` and `observer` (may be null) must outlive the scheduler.
  static absl::StatusOr<std::unique_ptr<Scheduler>> Create(Options options, Backend* backend,
                                                           SchedulerObserver* observer);
  // Fails what is queued with UNAVAILABLE, lets the running pass end, and joins the thread.
  virtual ~Scheduler() = default;

  // Takes the task if and only if OK is returned; its `done` is then called exactly once, whatever
  // happens. Otherwise the task is left untouched: RESOURCE_EXHAUSTED with a payload that says how
  // long to wait (RetryDelay below), UNAVAILABLE while draining, INVALID_ARGUMENT for a task that
  // breaks EmbedTask's contract.
  virtual absl::Status Submit(EmbedTask&& task) = 0;

  // Takes no more tasks, and waits until all accepted ones are done or `deadline` passes; what is
  // left then is failed with UNAVAILABLE. Returns whether everything was computed.
  virtual bool Drain(absl::Time deadline) = 0;

  virtual QueueSnapshot Snapshot() const = 0;
};

// The wait attached to a RESOURCE_EXHAUSTED or UNAVAILABLE status of the engine, or zero if there
// is none.
absl::Duration RetryDelay(const absl::Status& status);
void SetRetryDelay(absl::Status* status, absl::Duration delay);

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_SCHEDULER_H_
