// Items that are worked on side by side, and their results in the order of the items.
#ifndef QUIVER_TOOLS_QUIVER_RESULT_WINDOW_H_
#define QUIVER_TOOLS_QUIVER_RESULT_WINDOW_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/embedder.h"
#include "tools/quiver/executor.h"
#include "tools/quiver/input_source.h"

namespace quiver {

// Between a producer, which adds items, whoever computes them, and a consumer, which takes results.
// It bounds the memory of all of them: adding waits while as much is under way as the limits say.
// Thread-safe, for one producer and one consumer.
class ResultWindow {
 public:
  struct Limits {
    size_t max_items = 4096;
    // Of the items' texts; a single longer text is let in.
    size_t max_bytes = size_t{32} << 20;
  };

  ResultWindow() = default;
  explicit ResultWindow(Limits limits) : limits_(limits) {}

  // Whether Add would not wait for an item of `bytes`.
  bool HasRoom(size_t bytes) const;

  // Takes the next item, whose index must be one more than the last one's (the first is 0); of its
  // text only the size is of interest, so that it may have been moved away. False once the window
  // is closed.
  bool Add(InputItem item, size_t bytes);

  // The result of a pending item; one for any other index, or a second one, is ignored.
  void Complete(uint64_t index, absl::StatusOr<Embedding> result);

  // No more items are taken; pending ones are still waited for. The first call of Close or Fail
  // decides the status.
  void Close(absl::Status status);

  // As Close, and every pending item gets `pending` as its result.
  void Fail(absl::Status status, const absl::Status& pending);

  // Puts every item with its result into `sink`, in order, until the window is closed and empty;
  // flushes the sink before it waits. Returns the window's status, or the first error of `sink`,
  // which leaves the window as it stands.
  absl::Status PutAll(EmbeddingSink* sink);

 private:
  struct Entry {
    InputItem item;
    std::optional<absl::StatusOr<Embedding>> result;
    size_t bytes = 0;
  };

  bool HasRoomLocked(size_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool FrontReady() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<Entry> TakeFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Limits limits_;
  mutable absl::Mutex mutex_;
  std::deque<Entry> entries_ ABSL_GUARDED_BY(mutex_);
  // Index of the first entry.
  uint64_t first_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_RESULT_WINDOW_H_
