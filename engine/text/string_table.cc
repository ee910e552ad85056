#include "engine/text/string_table.h"

#include <algorithm>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace quiver {

uint64_t StringTable::Hash(absl::string_view key) { return XXH3_64bits(key.data(), key.size()); }

void StringTable::Reset(size_t count, size_t bytes) {
  size_t slots = 2;
  while (slots < 2 * count) slots *= 2;
  slots_.assign(slots, Slot());
  mask_ = slots - 1;
  keys_.clear();
  keys_.reserve(bytes);
  size_ = longest_ = 0;
}

bool StringTable::Insert(absl::string_view key, TokenId value) {
  const uint64_t hash = Hash(key);
  const uint32_t tag = static_cast<uint32_t>(hash >> 32);
  size_t i = hash & mask_;
  for (; slots_[i].value != kNotFound; i = (i + 1) & mask_) {
    const Slot& slot = slots_[i];
    if (slot.tag == tag && absl::string_view(keys_).substr(slot.offset, slot.length) == key) {
      return false;
    }
  }
  slots_[i] = {tag, static_cast<uint32_t>(keys_.size()), static_cast<uint32_t>(key.size()), value};
  keys_.append(key.data(), key.size());
  longest_ = std::max(longest_, key.size());
  ++size_;
  return true;
}

}  // namespace quiver
