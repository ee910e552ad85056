#ifndef QUIVER_ENGINE_SCHEDULE_EMBED_TASK_H_
#define QUIVER_ENGINE_SCHEDULE_EMBED_TASK_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/types.h"

namespace quiver {

// Set once by whoever no longer wants the answer (a client that went away); read by the scheduler.
// Shared by all tasks of one request.
class CancellationFlag {
 public:
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_{false};
};

// What became of one task. Times are for the task alone.
struct TaskResult {
  absl::StatusOr<EncodedVector> vector;
  // From Submit to its batch's start, and from there to its vector.
  absl::Duration queue_time;
  absl::Duration compute_time;
};

// One sequence of tokens on its way to a vector. Move-only.
struct EmbedTask {
  // At least one, at most the backend's max_sequence_tokens.
  std::vector<TokenId> token_ids;
  OutputSpec output;
  Lane lane = Lane::kInteractive;
  // Not computed if its batch would start later than this; DEADLINE_EXCEEDED instead.
  absl::Time deadline = absl::InfiniteFuture();
  // May be null. Cancelled tasks get CANCELLED.
  std::shared_ptr<const CancellationFlag> cancellation;
  // Called exactly once, if and only if Submit accepted the task, on the scheduler's thread: must
  // be quick, must not block and must not call Submit.
  absl::AnyInvocable<void(TaskResult)> done;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_EMBED_TASK_H_
