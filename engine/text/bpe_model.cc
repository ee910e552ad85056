#include "engine/text/bpe_model.h"

#include <algorithm>
#include <queue>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/text/byte_level.h"
#include "engine/text/json_fields.h"

namespace quiver {
namespace {

// Up to here the next merge is found by looking at all pairs, which for few is faster than a heap.
constexpr size_t kShortPiece = 128;

}  // namespace

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

void BpeModel::FillWholePieces(const TokenizerJson& json, bool ignore_merges) {
  StringTable whole;
  whole.Reset(json.vocab.size(), json.vocab_bytes.size());
  std::string bytes;
  std::vector<TokenId> ids;
  for (const auto& entry : json.vocab) {
    // What is not spelled in bytes, such as an added token that the vocabulary holds too, is never
    // met. A token that its own merges do not lead to is not met unless merges are ignored.
    if (!DecodeByteLevel(entry.token, &bytes)) continue;
    if (!ignore_merges) {
      ids.clear();
      Encode(bytes, &ids);
      if (ids.size() != 1) continue;
    }
    whole.Insert(bytes, entry.id);
  }
  whole_pieces_ = std::move(whole);
}

void BpeModel::Encode(absl::string_view piece, std::vector<TokenId>* ids) const {
  const TokenId whole = whole_pieces_.Find(piece);
  if (whole >= 0) {
    ids->push_back(whole);
  } else if (piece.size() <= kShortPiece) {
    EncodeShort(piece, ids);
  } else {
    EncodeLong(piece, ids);
  }
}

void BpeModel::EncodeShort(absl::string_view piece, std::vector<TokenId>* ids) const {
  if (piece.empty()) return;
  // The tokens so far; merges[i] is that of tokens i and i + 1.
  TokenId tokens[kShortPiece];
  uint32_t ranks[kShortPiece];
  TokenId products[kShortPiece];
  size_t n = piece.size();
  const auto look_up = [&](size_t i) {
    const Merge merge = FindMerge(tokens[i], tokens[i + 1]);
    ranks[i] = merge.rank;
    products[i] = merge.id;
  };
  for (size_t i = 0; i < n; ++i) tokens[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
  for (size_t i = 0; i + 1 < n; ++i) look_up(i);
  while (n > 1) {
    const size_t best = static_cast<size_t>(std::min_element(ranks, ranks + n - 1) - ranks);
    if (ranks[best] == kNoMerge) break;
    tokens[best] = products[best];
    --n;
    std::copy(tokens + best + 2, tokens + n + 1, tokens + best + 1);
    if (best + 1 < n) {
      std::copy(ranks + best + 2, ranks + n, ranks + best + 1);
      std::copy(products + best + 2, products + n, products + best + 1);
      look_up(best);
    }
    if (best > 0) look_up(best - 1);
  }
  ids->insert(ids->end(), tokens, tokens + n);
}

void BpeModel::EncodeLong(absl::string_view piece, std::vector<TokenId>* ids) const {
  constexpr uint32_t kEnd = UINT32_MAX;
  // A doubly linked list by position of each token's first byte; `merge` is that with the next one,
  // and is none where the token was swallowed by the one before.
  struct Node {
    TokenId token;
    uint32_t previous, next;
    Merge merge;
  };
  const uint32_t n = static_cast<uint32_t>(piece.size());
  std::vector<Node> nodes(n);
  for (uint32_t i = 0; i < n; ++i) {
    nodes[i] = {byte_ids_[static_cast<unsigned char>(piece[i])],
                i == 0 ? kEnd : i - 1,
                i + 1 == n ? kEnd : i + 1,
                {}};
  }
  // Rank and position of each merge that is or was possible, least first.
  std::vector<uint64_t> queue;
  const auto look_up = [&](uint32_t i) {
    Node& node = nodes[i];
    node.merge = node.next == kEnd ? Merge() : FindMerge(node.token, nodes[node.next].token);
    return node.merge.rank != kNoMerge;
  };
  const auto entry = [&](uint32_t i) {
    return static_cast<uint64_t>(nodes[i].merge.rank) << 32 | i;
  };
  for (uint32_t i = 0; i < n; ++i) {
    if (look_up(i)) queue.push_back(entry(i));
  }
  const auto later = std::greater<uint64_t>();
  std::make_heap(queue.begin(), queue.end(), later);
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const uint64_t top = queue.back();
    queue.pop_back();
    const uint32_t i = static_cast<uint32_t>(top);
    Node& node = nodes[i];
    // Outdated if the pair here has changed since.
    if (node.merge.rank != static_cast<uint32_t>(top >> 32)) continue;
    Node& swallowed = nodes[node.next];
    node.token = node.merge.id;
    node.next = swallowed.next;
    swallowed.merge = Merge();
    if (node.next != kEnd) nodes[node.next].previous = i;
    for (const uint32_t changed : {i, node.previous}) {
      if (changed != kEnd && look_up(changed)) {
        queue.push_back(entry(changed));
        std::push_heap(queue.begin(), queue.end(), later);
      }
    }
  }
  for (uint32_t i = 0; i != kEnd; i = nodes[i].next) ids->push_back(nodes[i].token);
}

}  // namespace quiver
