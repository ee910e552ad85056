// Byte-level byte-pair encoding of one piece of text.
#ifndef QUIVER_ENGINE_TEXT_BPE_MODEL_H_
#define QUIVER_ENGINE_TEXT_BPE_MODEL_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/text/string_table.h"
#include "engine/text/tokenizer_json.h"
#include "engine/types.h"

namespace quiver {

// Immutable and thread-safe.
class BpeModel {
 public:
  // Model section of a byte-level tokenizer: every byte must be in the vocabulary, and both parts
  // and the product of every merge. UNIMPLEMENTED names an option that is not supported.
  static absl::StatusOr<std::unique_ptr<BpeModel>> Create(const TokenizerJson& json);

  // Appends the ids of `piece`, valid UTF-8: the pair of lowest rank is merged first, of equal ones
  // the leftmost. Takes O(n log n).
  void Encode(absl::string_view piece, std::vector<TokenId>* ids) const;

 private:
  static constexpr uint32_t kNoMerge = UINT32_MAX;

  struct Merge {
    uint32_t rank = kNoMerge;
    TokenId id = -1;
  };
  struct PairSlot {
    uint64_t pair = UINT64_MAX;
    Merge merge;
  };

  // What is before a character and what is after it, in whole_characters_.
  static constexpr uint32_t kAfterAscii = 1, kAfterOther = 2, kBeforeAscii = 4, kBeforeOther = 8;
  static constexpr int kNeighborBits = 4;

  static uint64_t PairKey(TokenId left, TokenId right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }
  size_t SlotOf(uint64_t pair) const { return (pair * 0x9E3779B97F4A7C15u) >> pair_shift_; }
  Merge FindMerge(TokenId left, TokenId right) const {
    const uint64_t pair = PairKey(left, right);
    for (size_t i = SlotOf(pair);; i = (i + 1) & pair_mask_) {
      if (pairs_[i].pair == pair) return pairs_[i].merge;
      if (pairs_[i].pair == UINT64_MAX) return {};
    }
  }

  absl::Status ReadMerges(const TokenizerJson& json, const StringTable& vocab);
  void FillWholeCharacters(const TokenizerJson& json);
  void FillWholePieces(const TokenizerJson& json, bool ignore_merges);
  // Writes the tokens that merging begins with, at most one a byte, and returns their number.
  size_t Begin(absl::string_view piece, TokenId* tokens) const;
  // Merge `tokens` as far as they go and append them; the first may write to them, and takes as
  // many as a short piece has bytes.
  void MergeFew(TokenId* tokens, size_t n, std::vector<TokenId>* ids) const;
  void MergeMany(const std::vector<TokenId>& tokens, std::vector<TokenId>* ids) const;

  std::array<TokenId, 256> byte_ids_;
  // Open addressing by the pair's ids, at most half full.
  std::vector<PairSlot> pairs_;
  size_t pair_mask_ = 0;
  int pair_shift_ = 63;
  // By code point below U+10000: the token that the character becomes before anything else can
  // happen to its bytes, shifted left by kNeighborBits, with a bit for each kind of neighbor beside
  // which that holds. 0 if there is none.
  std::vector<uint32_t> whole_characters_;
  // Pieces that are one token as a whole.
  StringTable whole_pieces_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_BPE_MODEL_H_
