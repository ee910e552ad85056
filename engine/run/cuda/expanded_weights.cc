#include "engine/run/cuda/expanded_weights.h"

#include <algorithm>

#include "engine/run/cuda/activation_layout.h"

namespace quiver {

ExpandedWeights::Place ExpandedWeights::Take(const void* weight, int64_t bytes, int64_t room) {
  for (const Entry& entry : entries_) {
    if (entry.weight == weight && entry.bytes == bytes && entry.offset + bytes <= room) {
      return {entry.offset, true};
    }
  }
  const int64_t begin = end_ + bytes <= room ? end_ : 0;
  entries_.erase(std::remove_if(entries_.begin(), entries_.end(),
                                [&](const Entry& entry) {
                                  return entry.offset < begin + bytes &&
                                         begin < entry.offset + entry.bytes;
                                }),
                 entries_.end());
  entries_.push_back({weight, bytes, begin});
  end_ = AlignUp(begin + bytes, kArenaAlignment);
  return {begin, false};
}

}  // namespace quiver
