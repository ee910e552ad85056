// Rows that are worked on side by side, and what became of them in their order.
#ifndef QUIVER_TOOLS_INDEX_ROW_WINDOW_H_
#define QUIVER_TOOLS_INDEX_ROW_WINDOW_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "quiver/client_types.h"

namespace quiver::index {

// A chunk of a document on its way to a vector.
struct PendingRow {
  std::string id;
  std::string place;
  uint32_t chunk = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
  std::string text = {};
  // Records of the input that are done once this row is; 0 if more chunks of its document follow.
  uint64_t documents = 0;
  std::optional<absl::StatusOr<client::Embedding>> result = std::nullopt;
};

// Between a producer, which adds rows, a reader, which completes them in any order, and a consumer,
// which takes them in order. It bounds the memory of all of them: adding waits while as much is
// under way as the limits say. Thread-safe, for one of each.
class RowWindow {
 public:
  struct Limits {
    size_t max_rows = 32768;
    // Of texts and vectors; a single larger row is let in.
    size_t max_bytes = size_t{64} << 20;
  };

  // `vector_bytes` is the size of one vector.
  RowWindow(Limits limits, size_t vector_bytes) : limits_(limits), vector_bytes_(vector_bytes) {}

  // Takes the next row and gives its number, counted from 0; nothing once the window is closed. One
  // with a result is complete.
  std::optional<uint64_t> Add(PendingRow row);

  // The result of a row that has none yet; any other is ignored.
  void Complete(uint64_t number, absl::StatusOr<client::Embedding> result);

  // No more rows are taken; those under way are still waited for. With an error they are not: the
  // consumer gets what is complete up to the first that is not. The first call decides.
  void Close(absl::Status status);

  // Waits for the first row to be complete, `timeout` at most, and moves all that are complete in
  // order behind *rows. False when there will be none: status() then says why.
  bool Take(std::vector<PendingRow>* rows, absl::Duration timeout);

  absl::Status status() const;

 private:
  bool HasRoom(size_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Takeable() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t Bytes(const PendingRow& row) const;

  const Limits limits_;
  const size_t vector_bytes_;
  mutable absl::Mutex mutex_;
  std::deque<PendingRow> rows_ ABSL_GUARDED_BY(mutex_);
  // Number of the first row.
  uint64_t first_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_ROW_WINDOW_H_
