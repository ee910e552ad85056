#include "server/stream_results.h"

#include <algorithm>
#include <utility>

#include "server/wire.h"

namespace quiver {
namespace {

// A response much larger than this gains nothing by it, and a client's limit is 4 MiB by default.
constexpr size_t kMaxResponseBytes = 512 * 1024;
constexpr size_t kResultOverheadBytes = 64;

size_t Bytes(const StreamItem& item) {
  return kResultOverheadBytes + item.id.size() +
         (item.result.ok() ? item.result->vector.data.size()
                           : item.result.status().message().size());
}

}  // namespace

void StreamResults::Add(StreamItem item) {
  if (!in_order_) {
    ready_.push_back(std::move(item));
    return;
  }
  const uint64_t index = item.index;
  early_.emplace(index, std::move(item));
  while (!early_.empty() && early_.begin()->first == next_) {
    ready_.push_back(std::move(early_.begin()->second));
    early_.erase(early_.begin());
    ++next_;
  }
}

std::vector<StreamItem> StreamResults::Take() {
  std::vector<StreamItem> items;
  size_t bytes = 0;
  while (!ready_.empty() && bytes < kMaxResponseBytes) {
    bytes += Bytes(ready_.front());
    items.push_back(std::move(ready_.front()));
    ready_.pop_front();
  }
  return items;
}

void StreamResults::Clear() {
  ready_.clear();
  early_.clear();
}

void StreamTally::Add(const StreamItem& item) {
  if (!item.result.ok()) {
    report_.CountFailure(item.result.status());
    return;
  }
  ++report_.succeeded;
  report_.truncated += item.result->truncated ? 1 : 0;
  report_.tokens += item.result->token_count;
  report_.queue = std::max(report_.queue, item.result->queue_time);
  report_.compute = std::max(report_.compute, item.result->compute_time);
  report_.timeline.Add(*item.result);
}

void StreamTally::Fill(v1::StreamSummary* out) const {
  out->set_items(static_cast<uint64_t>(report_.succeeded + report_.failed));
  SetUsage(report_, out->mutable_usage());
  for (size_t code = 0; code < kNumCodes; ++code) {
    const int64_t count = report_.failed_by_code[code];
    if (count > 0) (*out->mutable_failures_by_code())[static_cast<int>(code)] = count;
  }
}

}  // namespace quiver
