#ifndef QUIVER_ENGINE_SCHEDULE_EMBED_TASK_H_
#define QUIVER_ENGINE_SCHEDULE_EMBED_TASK_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/types.h"

namespace quiver {

// Set once by whoever no longer wants the answer (a client that went away); read by the scheduler
// when it packs a batch, between the steps of a pass, and by and by while the task waits. Shared by
// all tasks of one request.
class CancellationFlag {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_{false};
};

// A client whose deadline passes cancels, which may come a little before it has passed by the clock
// here: what is cancelled within this time of its deadline is DEADLINE_EXCEEDED.
inline constexpr absl::Duration kCancelledAtDeadline = absl::Milliseconds(10);

// What a batch held; all zero where there was none.
struct BatchShape {
  int sequences = 0;
  // Those computed, and those it might have had.
  int tokens = 0;
  int token_budget = 0;
};

// What became of one task. Times are for the task alone.
struct TaskResult {
  absl::StatusOr<EncodedVector> vector;
  // From Submit to its batch's start, and from there to its vector.
  absl::Duration queue_time;
  absl::Duration compute_time;
  // The end of the latter; the same for all of one batch.
  absl::Time answered = {};
  BatchShape batch = {};
};

// One sequence of tokens on its way to a vector. Move-only.
struct EmbedTask {
  // At least one, at most the backend's max_sequence_tokens.
  std::vector<TokenId> token_ids;
  OutputSpec output;
  Lane lane = Lane::kInteractive;
  // Not computed if its batch would start later than this, and given up between two steps if it is
  // still running then; DEADLINE_EXCEEDED instead.
  absl::Time deadline = absl::InfiniteFuture();
  // May be null. Cancelled tasks get CANCELLED, unless it was for their deadline.
  std::shared_ptr<const CancellationFlag> cancellation;
  // On whose behalf. The tenants of a lane get equal parts of it by tokens; within a tenant the
  // earliest deadline goes first.
  std::string tenant;
  // Called exactly once, if and only if Submit accepted the task, on a thread of the scheduler's or
  // on that of Drain or the destructor: must be quick, must not block and must not call the
  // scheduler. Calls for different tasks may overlap.
  absl::AnyInvocable<void(TaskResult)> done;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_EMBED_TASK_H_
