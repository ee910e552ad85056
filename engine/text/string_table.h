// An immutable-after-filling map from strings to ids: one allocation for the keys, one for the
// slots.
#ifndef QUIVER_ENGINE_TEXT_STRING_TABLE_H_
#define QUIVER_ENGINE_TEXT_STRING_TABLE_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/types.h"

namespace quiver {

class StringTable {
 public:
  static constexpr TokenId kNotFound = -1;

  StringTable() : slots_(1) {}

  // Room for `count` keys of `bytes` together; drops what was there. Insert needs it first.
  void Reset(size_t count, size_t bytes);

  // False if `key` is there already. `value` is not negative. At most the reserved count.
  bool Insert(absl::string_view key, TokenId value);

  // The value of `key`, or kNotFound.
  TokenId Find(absl::string_view key) const {
    const uint64_t hash = Hash(key);
    const uint32_t tag = static_cast<uint32_t>(hash >> 32);
    for (size_t i = hash & mask_;; i = (i + 1) & mask_) {
      const Slot& slot = slots_[i];
      if (slot.value == kNotFound) return kNotFound;
      if (slot.tag == tag && slot.length == key.size() &&
          std::memcmp(keys_.data() + slot.offset, key.data(), key.size()) == 0) {
        return slot.value;
      }
    }
  }

  size_t size() const { return size_; }
  // Bytes of the longest key.
  size_t longest() const { return longest_; }

 private:
  struct Slot {
    uint32_t tag = 0;
    uint32_t offset = 0;
    uint32_t length = 0;
    TokenId value = kNotFound;
  };

  static uint64_t Hash(absl::string_view key);

  std::string keys_;
  std::vector<Slot> slots_;
  size_t mask_ = 0;
  size_t size_ = 0;
  size_t longest_ = 0;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_STRING_TABLE_H_
