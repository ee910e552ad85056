#ifndef QUIVER_ENGINE_RUN_PACKED_BATCH_H_
#define QUIVER_ENGINE_RUN_PACKED_BATCH_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/types.h"

namespace quiver {

// The first tokens of a sequence whose keys and values the backend keeps, in rows [row, row +
// length) of BackendInfo.prefix_tokens: there already, so that the sequence's own tokens are those
// after them, or to be put there by the pass, from the first of the sequence's own.
struct PrefixUse {
  int32_t row = 0;
  int32_t length = 0;
  bool store = false;

  // Tokens of the sequence that are not its own.
  int32_t reused() const { return store ? 0 : length; }
};

// Unpadded concatenation of the tokens of several sequences. Sequence s owns tokens
// [cu_seqlens[s], cu_seqlens[s + 1]); a token's position within its sequence is its index less
// cu_seqlens[s], plus prefix(s).reused().
//
// Invariants that a Backend may rely on: at least one sequence; no empty sequence;
// cu_seqlens.size() == outputs.size() + 1, cu_seqlens.front() == 0, cu_seqlens.back() ==
// token_ids.size(); every id within the vocabulary; no sequence longer than
// BackendInfo.max_sequence_tokens; in all no more than BackendInfo.max_batch_tokens, and no more
// than max_second_batch_tokens while another pass has a place on the device.
struct PackedBatch {
  std::vector<TokenId> token_ids;
  std::vector<int32_t> cu_seqlens = {0};
  std::vector<OutputSpec> outputs;
  // Empty if no sequence has one. Rows that are read must hold what a pass put there that is
  // complete; no other pass may read or write rows that are written.
  std::vector<PrefixUse> prefixes;

  PrefixUse prefix(int sequence) const {
    return prefixes.empty() ? PrefixUse() : prefixes[static_cast<size_t>(sequence)];
  }
  int num_sequences() const { return static_cast<int>(outputs.size()); }
  int num_tokens() const { return static_cast<int>(token_ids.size()); }

  // `ids` are the sequence's own.
  void Append(absl::Span<const TokenId> ids, const OutputSpec& output,
              const PrefixUse& prefix = {}) {
    if (prefix.length > 0 || !prefixes.empty()) {
      prefixes.resize(outputs.size());
      prefixes.push_back(prefix);
    }
    token_ids.insert(token_ids.end(), ids.begin(), ids.end());
    cu_seqlens.push_back(static_cast<int32_t>(token_ids.size()));
    outputs.push_back(output);
  }
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_PACKED_BATCH_H_
