#include "engine/text/bpe_model.h"

#include <algorithm>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/text/byte_level.h"
#include "engine/text/json_fields.h"
#include "engine/text/tokenizer.h"
#include "engine/text/unicode.h"

namespace quiver {
absl::StatusOr<std::unique_ptr<BpeModel>> BpeModel::Create(const TokenizerJson& json) {
  const nlohmann::json& model = json.document["model"];
  JsonFields fields(model, "model");
  const double dropout = fields.Number("dropout", 0);
  const bool byte_fallback = fields.Bool("byte_fallback", false);
  const bool ignore_merges = fields.Bool("ignore_merges", false);
  const std::string prefix = fields.String("continuing_subword_prefix", "");
  const std::string suffix = fields.String("end_of_word_suffix", "");
  if (!fields.status().ok()) return fields.status();
  if (dropout != 0) return absl::UnimplementedError("model.dropout is not supported");
  if (byte_fallback) return absl::UnimplementedError("model.byte_fallback is not supported");
  if (!prefix.empty()) {
    return absl::UnimplementedError("model.continuing_subword_prefix of BPE is not supported");
  }
  if (!suffix.empty()) {
    return absl::UnimplementedError("model.end_of_word_suffix is not supported");
  }
  if (!json.has_merges) return absl::InvalidArgumentError("model.merges is missing");

  StringTable vocab;
  vocab.Reset(json.vocab.size(), json.vocab_bytes.size());
  for (const auto& entry : json.vocab) {
    if (!vocab.Insert(entry.token, entry.id)) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.vocab holds \"", entry.token, "\" twice"));
    }
  }
  auto bpe = std::make_unique<BpeModel>();
  for (int b = 0; b < 256; ++b) {
    const std::string spelling = ByteLevelSpelling(static_cast<unsigned char>(b));
    bpe->byte_ids_[b] = vocab.Find(spelling);
    if (bpe->byte_ids_[b] < 0) {
      return absl::InvalidArgumentError(absl::StrCat("model.vocab lacks \"", spelling,
                                                     "\", the byte ", b,
                                                     ": it is not a byte-level vocabulary"));
    }
  }
  absl::Status status = bpe->ReadMerges(json, vocab);
  if (!status.ok()) return status;
  bpe->FillWholeCharacters(json);
  bpe->FillWholePieces(json, ignore_merges);
  return bpe;
}

absl::Status BpeModel::ReadMerges(const TokenizerJson& json, const StringTable& vocab) {
  size_t slots = 2;
  pair_shift_ = 63;
  while (slots < 2 * json.merges.size()) {
    slots *= 2;
    --pair_shift_;
  }
  pairs_.assign(slots, PairSlot());
  pair_mask_ = slots - 1;
  std::string product;
  for (size_t rank = 0; rank < json.merges.size(); ++rank) {
    const auto& [left, right] = json.merges[rank];
    product.assign(left.data(), left.size());
    product.append(right.data(), right.size());
    const TokenId left_id = vocab.Find(left), right_id = vocab.Find(right);
    const TokenId id = vocab.Find(product);
    if (left_id < 0 || right_id < 0 || id < 0) {
      const absl::string_view unknown = left_id < 0 ? left : right_id < 0 ? right : product;
      return absl::InvalidArgumentError(absl::StrCat("model.merges[", rank, "] needs \"", unknown,
                                                     "\", which is not in model.vocab"));
    }
    const uint64_t pair = PairKey(left_id, right_id);
    size_t i = SlotOf(pair);
    while (pairs_[i].pair != UINT64_MAX && pairs_[i].pair != pair) i = (i + 1) & pair_mask_;
    // The later of two equal merges counts.
    pairs_[i] = {pair, {static_cast<uint32_t>(rank), id}};
  }
  return absl::OkStatus();
}

// Most merges only put the bytes of one character together. That may be done first for a character
// if in the true order, too, its bytes are one token before any of them can merge with a neighbor:
// no merge of its first bytes with what is before, of its last ones with what is after, or of the
// whole has a rank as low as those that make it whole.
void BpeModel::FillWholeCharacters(const TokenizerJson& json) {
  // Of each token of a few bytes, the lowest rank of a merge that has it on its right, by whether
  // what is on the left ends in ASCII; on its left, by whether what is on the right begins with
  // ASCII, or else with another character; anywhere.
  struct Bounds {
    uint32_t after_ascii = kNoMerge, after_other = kNoMerge;
    uint32_t before_ascii = kNoMerge, before_other = kNoMerge;
    uint32_t whole = kNoMerge;
  };
  absl::flat_hash_map<TokenId, Bounds> bounds;
  struct Character {
    uint32_t point;
    TokenId id;
    std::string bytes;
  };
  std::vector<Character> characters;
  std::string bytes;
  for (const auto& entry : json.vocab) {
    if (entry.token.size() > 6 || !DecodeByteLevel(entry.token, &bytes)) continue;
    if (bytes.empty() || bytes.size() > 3) continue;
    bounds.emplace(entry.id, Bounds());
    if (bytes.size() < 2 || FindInvalidUtf8(bytes) >= 0) continue;
    if (entry.id >= 1 << (32 - kNeighborBits)) continue;
    const char* p = bytes.data();
    const uint32_t point = NextCodePoint(p);
    if (p == bytes.data() + bytes.size()) characters.push_back({point, entry.id, bytes});
  }
  const auto lower = [](uint32_t* lowest, uint32_t rank) { *lowest = std::min(*lowest, rank); };
  for (const PairSlot& slot : pairs_) {
    if (slot.pair == UINT64_MAX) continue;
    const uint32_t rank = slot.merge.rank;
    const auto left = bounds.find(static_cast<TokenId>(slot.pair >> 32));
    const auto right = bounds.find(static_cast<TokenId>(slot.pair & UINT32_MAX));
    // Parts that are not spelled in bytes never occur.
    if (left != bounds.end() && DecodeByteLevel(json.merges[rank].second, &bytes)) {
      lower(&left->second.whole, rank);
      if (IsAsciiByte(bytes[0])) {
        lower(&left->second.before_ascii, rank);
      } else if (!IsContinuationByte(bytes[0])) {
        lower(&left->second.before_other, rank);
      }
    }
    if (right != bounds.end() && DecodeByteLevel(json.merges[rank].first, &bytes)) {
      Bounds& b = right->second;
      lower(&b.whole, rank);
      lower(IsAsciiByte(bytes.back()) ? &b.after_ascii : &b.after_other, rank);
    }
  }

  whole_characters_.assign(0x10000, 0);
  for (const Character& c : characters) {
    const auto byte_id = [&](size_t i) {
      return byte_ids_[static_cast<unsigned char>(c.bytes[i])];
    };
    const size_t n = c.bytes.size();
    const TokenId first = byte_id(0), second = byte_id(1), last = byte_id(n - 1);
    // The tokens that the character's bytes are on the way, at its beginning and at its end.
    std::vector<TokenId> heads = {first}, tails = {last};
    Merge whole = FindMerge(first, second);
    uint32_t highest = whole.rank;
    if (n == 3) {
      const Merge head = whole, tail = FindMerge(second, last);
      if (head.id >= 0) heads.push_back(head.id);
      if (tail.id >= 0) tails.push_back(tail.id);
      whole = head.rank <= tail.rank ? FindMerge(head.id, last) : FindMerge(first, tail.id);
      highest = std::max(whole.rank, std::min(head.rank, tail.rank));
    }
    if (whole.id != c.id || highest >= bounds[c.id].whole) continue;
    uint32_t safe = kAfterAscii | kAfterOther | kBeforeAscii | kBeforeOther;
    for (const TokenId head : heads) {
      if (highest >= bounds[head].after_ascii) safe &= ~kAfterAscii;
      if (highest >= bounds[head].after_other) safe &= ~kAfterOther;
    }
    for (const TokenId tail : tails) {
      if (highest >= bounds[tail].before_ascii) safe &= ~kBeforeAscii;
      if (highest >= bounds[tail].before_other) safe &= ~kBeforeOther;
    }
    whole_characters_[c.point] = static_cast<uint32_t>(c.id) << kNeighborBits | safe;
  }
}

void BpeModel::FillWholePieces(const TokenizerJson& json, bool ignore_merges) {
  StringTable whole;
  whole.Reset(json.vocab.size(), json.vocab_bytes.size());
  std::string bytes;
  std::vector<TokenId> ids;
  for (const auto& entry : json.vocab) {
    // No piece of text is what has no spelling in bytes, such as an added token that the vocabulary
    // holds too, and what does not consist of whole characters. What its own merges do not lead to
    // is met only if merges are ignored.
    if (!DecodeByteLevel(entry.token, &bytes) || FindInvalidUtf8(bytes) >= 0) continue;
    if (!ignore_merges) {
      ids.clear();
      Encode(bytes, &ids);
      if (ids.size() != 1) continue;
    }
    whole.Insert(bytes, entry.id);
  }
  whole_pieces_ = std::move(whole);
}

}  // namespace quiver
