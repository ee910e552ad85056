// What the scheduler's parts hand to each other. Times are nanoseconds since the Unix epoch.
#ifndef QUIVER_ENGINE_SCHEDULE_JOB_H_
#define QUIVER_ENGINE_SCHEDULE_JOB_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/schedule/cost_model.h"
#include "engine/schedule/embed_task.h"
#include "engine/schedule/prefix_cache.h"
#include "engine/types.h"

namespace quiver {

inline constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

// kNever for the infinite future.
inline int64_t ToNanos(absl::Time time) { return absl::ToUnixNanos(time); }

struct Tenant;

// One accepted task: what its submitter waits for.
struct Waiter {
  absl::AnyInvocable<void(TaskResult)> done;
  std::shared_ptr<const CancellationFlag> cancellation;
  int64_t deadline = kNever;
  int64_t submitted = 0;

  // Whether it may have to be answered before its job is done.
  bool mortal() const { return deadline != kNever || cancellation != nullptr; }
  bool cancelled() const { return cancellation != nullptr && cancellation->cancelled(); }
};

// One sequence to compute, for everybody who waits for it. Made by LaneQueue; deleted when it is
// done and no queue refers to it any more.
struct Job {
  // kRetrying waits in a group of what is left of a failed pass.
  enum class State : uint8_t { kQueued, kRetrying, kRunning, kDone };

  // The lane's jobs in order of arrival, while kQueued or kRetrying. In front, so that one cache
  // line holds both.
  Job* older = nullptr;
  Job* newer = nullptr;
  std::vector<TokenId> ids;
  OutputSpec output;
  State state = State::kQueued;
  // Whether it is the one that equal tasks join, and under which hash.
  bool joinable = false;
  uint64_t hash = 0;
  // How many batches have left it behind for want of room.
  int skips = 0;
  // Queue entries that point here.
  int entries = 0;
  // How many of the waiters came while it ran.
  int64_t joined = 0;
  // What it is ordered by within its tenant: the earliest deadline of its waiters, or a stand-in.
  int64_t due = kNever;
  bool has_deadline = false;
  // By the first waiter.
  int64_t submitted = 0;
  // Begin of the pass.
  int64_t started = 0;
  // Whose tokens it counts among, the first waiter's; while kQueued.
  Tenant* tenant = nullptr;
  // Null if all tokens are computed and none are kept.
  std::shared_ptr<const PrefixCache::Hold> prefix;
  // Empty only when done.
  absl::InlinedVector<Waiter, 1> waiters;

  // Tokens whose keys and values are there already, and those to compute: all others.
  int64_t reused() const { return prefix == nullptr ? 0 : prefix->use().reused(); }
  int64_t length() const { return static_cast<int64_t>(ids.size()) - reused(); }
  CostModel::Work AddTo(const CostModel::Work& work) const { return work.With(length(), reused()); }
  void AppendTo(PackedBatch* batch) const {
    batch->Append(absl::MakeConstSpan(ids).subspan(static_cast<size_t>(reused())), output,
                  prefix == nullptr ? PrefixUse() : prefix->use());
  }
};

// A `done` that is to be called, outside of any lock.
struct Completion {
  absl::AnyInvocable<void(TaskResult)> done;
  TaskResult result;

  void Deliver() { done(std::move(result)); }
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_JOB_H_
