#ifndef QUIVER_ENGINE_RUN_PACKED_BATCH_H_
#define QUIVER_ENGINE_RUN_PACKED_BATCH_H_

#include <cstdint>
#include <vector>

#include "engine/types.h"

namespace quiver {

// Unpadded concatenation of the tokens of several sequences. Sequence s owns tokens
// [cu_seqlens[s], cu_seqlens[s + 1]); a token's position within its sequence is its index less
// cu_seqlens[s].
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

  int num_sequences() const { return static_cast<int>(outputs.size()); }
  int num_tokens() const { return static_cast<int>(token_ids.size()); }

  void Append(const std::vector<TokenId>& ids, const OutputSpec& output) {
    token_ids.insert(token_ids.end(), ids.begin(), ids.end());
    cu_seqlens.push_back(static_cast<int32_t>(token_ids.size()));
    outputs.push_back(output);
  }
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_PACKED_BATCH_H_
