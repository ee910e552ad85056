#ifndef QUIVER_SERVER_REQUEST_TIMELINE_H_
#define QUIVER_SERVER_REQUEST_TIMELINE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "engine/embedder.h"

namespace quiver {

// When a request was where, for its trace. Of bounded size, however long a stream goes on.
struct RequestTimeline {
  // A batch that some of the request's items were computed in.
  struct Batch {
    // From the first item's begin to the vectors.
    absl::Time began;
    absl::Time ended;
    // The longest wait before it of one of the items.
    absl::Duration queue;
    // The request's part in the batch, and the whole of it.
    int64_t items = 0;
    int64_t tokens = 0;
    BatchShape shape;
  };
  static constexpr size_t kMaxBatches = 16;

  // Of unary requests: the first text's begin and the last one's end.
  absl::Time tokenize_began;
  absl::Time tokenize_ended;
  // The first ones, by the order in which their items were told, and how many there were in all. A
  // batch whose items are told of while others come between may count more than once beyond the
  // first ones.
  std::vector<Batch> batches;
  int64_t num_batches = 0;

  void Add(const Embedding& item) {
    const absl::Time began = item.answered - item.compute_time;
    // Results come batch by batch, or nearly so.
    const auto found = std::find_if(batches.rbegin(), batches.rend(), [&](const Batch& batch) {
      return batch.ended == item.answered;
    });
    if (found == batches.rend()) {
      if (item.answered != last_) ++num_batches;
      last_ = item.answered;
      if (batches.size() == kMaxBatches) return;
      batches.push_back({began, item.answered, item.queue_time, 1, item.token_count, item.batch});
      return;
    }
    found->began = std::min(found->began, began);
    found->queue = std::max(found->queue, item.queue_time);
    ++found->items;
    found->tokens += item.token_count;
  }

 private:
  absl::Time last_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_REQUEST_TIMELINE_H_
