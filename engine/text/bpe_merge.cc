// Merging: the part of BpeModel that runs for every piece of text.
#include <algorithm>
#include <functional>

#include "engine/text/bpe_model.h"
#include "engine/text/unicode.h"

namespace quiver {
namespace {

// Bytes of a piece up to which the next merge is found by looking at all pairs, which for few is
// faster than a heap.
constexpr size_t kShortPiece = 128;

// Index of the lowest of `n` ranks, the first of equal ones. Carries the value along, not the
// index: the loads then need not wait for the comparisons.
size_t IndexOfLowest(const uint32_t* ranks, size_t n) {
  uint32_t lowest = ranks[0];
  for (size_t i = 0; i < n; ++i) lowest = ranks[i] < lowest ? ranks[i] : lowest;
  return static_cast<size_t>(std::find(ranks, ranks + n, lowest) - ranks);
}

}  // namespace

void BpeModel::Encode(absl::string_view piece, std::vector<TokenId>* ids) const {
  if (piece.size() <= whole_pieces_.longest()) {
    const TokenId whole = whole_pieces_.Find(piece);
    if (whole >= 0) {
      ids->push_back(whole);
      return;
    }
  }
  if (piece.size() <= kShortPiece) {
    TokenId tokens[kShortPiece];
    MergeFew(tokens, Begin(piece, tokens), ids);
  } else {
    std::vector<TokenId> tokens(piece.size());
    tokens.resize(Begin(piece, tokens.data()));
    MergeMany(tokens, ids);
  }
}

size_t BpeModel::Begin(absl::string_view piece, TokenId* tokens) const {
  const char* const end = piece.data() + piece.size();
  TokenId* out = tokens;
  // The kind of neighbor that the next character is after; at the beginning of the piece none.
  uint32_t after = 0;
  for (const char* p = piece.data(); p != end;) {
    if (IsAsciiByte(*p)) {
      *out++ = byte_ids_[static_cast<unsigned char>(*p++)];
      after = kAfterAscii;
      continue;
    }
    const char* next = p;
    const uint32_t point = NextCodePoint(next);
    const uint32_t whole = point < whole_characters_.size() ? whole_characters_[point] : 0;
    const uint32_t before = next == end ? 0 : IsAsciiByte(*next) ? kBeforeAscii : kBeforeOther;
    if (whole != 0 && (~whole & (after | before)) == 0) {
      *out++ = static_cast<TokenId>(whole >> kNeighborBits);
      p = next;
    }
    for (; p != next; ++p) *out++ = byte_ids_[static_cast<unsigned char>(*p)];
    after = kAfterOther;
  }
  return static_cast<size_t>(out - tokens);
}

void BpeModel::MergeFew(TokenId* tokens, size_t n, std::vector<TokenId>* ids) const {
  if (n == 0) return;
  // ranks[i] and products[i] are those of the merge of tokens i and i + 1.
  uint32_t ranks[kShortPiece];
  TokenId products[kShortPiece];
  const auto look_up = [&](size_t i) {
    const Merge merge = FindMerge(tokens[i], tokens[i + 1]);
    ranks[i] = merge.rank;
    products[i] = merge.id;
  };
  for (size_t i = 0; i + 1 < n; ++i) look_up(i);
  while (n > 1) {
    const size_t best = IndexOfLowest(ranks, n - 1);
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

void BpeModel::MergeMany(const std::vector<TokenId>& tokens, std::vector<TokenId>* ids) const {
  constexpr uint32_t kEnd = UINT32_MAX;
  // A doubly linked list by position; `merge` is that with the next one, and is none where the
  // token was swallowed by the one before.
  struct Node {
    TokenId token;
    uint32_t previous, next;
    Merge merge;
  };
  const uint32_t n = static_cast<uint32_t>(tokens.size());
  std::vector<Node> nodes(n);
  for (uint32_t i = 0; i < n; ++i) {
    nodes[i] = {tokens[i], i == 0 ? kEnd : i - 1, i + 1 == n ? kEnd : i + 1, {}};
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
