// Where a pass's activations lie in the arena, and how large a pass a budget allows. Host
// arithmetic alone.
//
// Of a layer's keys and values only the current layer's exist; attention's output takes the place
// of its queries; everything else of a layer runs in chunks of tokens, so that only the residual
// and the projection are as long as the batch.
#ifndef QUIVER_ENGINE_RUN_CUDA_ACTIVATION_LAYOUT_H_
#define QUIVER_ENGINE_RUN_CUDA_ACTIVATION_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/run/cuda/forward_shape.h"

namespace quiver {

// Offsets are multiples of this, which is more than any kernel asks for.
inline constexpr int64_t kArenaAlignment = 256;
// What cuBLASLt may use in one product.
inline constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;
// Sequences of the largest batch.
inline constexpr int64_t kMaxBatchSequences = 512;
// Passes of at most so many tokens run as captured graphs, where one fits.
inline constexpr int64_t kMaxGraphTokens = 1024;

constexpr int64_t AlignUp(int64_t value, int64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// The most that one pass may hold.
struct PassLimits {
  int64_t tokens = 0;
  int64_t sequences = 0;
  int64_t chunk_tokens = 0;  // at least `sequences`
  // What the product of few rows works in: a property of the device.
  int64_t few_rows_bytes = 0;
  // What all layers in one launch work in; 0 where they do not run so.
  int64_t decoder_bytes = 0;
  // For weights that are multiplied in another form than theirs, as a whole or in parts, and for
  // inputs that become FP8; 0 where there are none.
  int64_t expanded_bytes = 0;
};

// Attention tiles that `tokens` in `sequences` may need.
constexpr int64_t MaxTiles(int64_t tokens, int64_t sequences) { return tokens / 64 + sequences; }

// Where the arrays that a batch is copied in with lie, in the same places on host and device.
struct InputLayout {
  InputLayout() = default;
  InputLayout(int64_t tokens, int64_t sequences, int64_t tiles, int64_t pooled_tiles);

  int64_t ids = 0;               // int32 [tokens]
  int64_t positions = 0;         // int32 [tokens]
  int64_t pooled_rows = 0;       // int32 [sequences]
  int64_t pooled_positions = 0;  // int32 [sequences]
  int64_t items = 0;             // PoolItem [sequences]
  int64_t tiles = 0;             // AttentionTile [tiles]
  int64_t pooled_tiles = 0;      // AttentionTile [pooled_tiles]
  int64_t bytes = 0;
};

// Offsets in a pass's region of the arena.
struct ActivationLayout {
  ActivationLayout() = default;
  ActivationLayout(const ForwardShape& shape, const PassLimits& limits);

  int64_t residual = 0;         // F32 [tokens, hidden]
  int64_t projected = 0;        // 16-bit [tokens, query | key | value]
  int64_t half = 0;             // 16-bit [chunk, hidden]
  int64_t inner = 0;            // 16-bit [chunk, inner_width]
  int64_t row_scales = 0;       // F32 [chunk]
  int64_t pooled_residual = 0;  // F32 [sequences, hidden]
  int64_t pooled_query = 0;     // 16-bit [sequences, query]
  int64_t input = 0;            // input_bytes
  int64_t results = 0;          // PoolResult [sequences], and then at once
  int64_t vectors = 0;          // bytes [sequences, 4 * hidden]
  int64_t counters = 0;         // int32 [2], attention's
  int64_t few_rows = 0;         // few_rows_bytes, zero before the first pass, as the counters
  int64_t decoder = 0;          // decoder_bytes, likewise
  int64_t expanded = 0;         // expanded_bytes
  int64_t workspace = 0;        // kWorkspaceBytes
  int64_t bytes = 0;
  int64_t input_bytes = 0;
  int64_t output_bytes = 0;  // from `results` to the end of `vectors`
};

// The two passes that may be alive: the second is the small one.
struct ActivationPlan {
  PassLimits first;
  PassLimits second;
  int64_t bytes = 0;
};

struct ActivationRequest {
  int64_t available_bytes = 0;
  // Tokens of the largest batch that are wished for, and that there must be.
  int64_t tokens = 0;
  int64_t min_tokens = 0;
  // Tokens of a step's chunk are at most this, so that a step is short.
  int64_t max_chunk_tokens = 0;
  int64_t few_rows_bytes = 0;
  int64_t decoder_bytes = 0;   // of the second pass, where graphs are
  int64_t expanded_bytes = 0;  // of the largest weight that is expanded
  // Of all of a layer's that are, so that the next chunk finds them.
  int64_t layer_expanded_bytes = 0;
  // Of a row of a chunk that becomes FP8 in a product; behind that.
  int64_t fp8_row_bytes = 0;
};

// The largest chunks and the largest second pass with which `tokens` fit; or, with the smallest of
// both, as many tokens as fit. RESOURCE_EXHAUSTED if those are less than `min_tokens`: its message
// says how many bytes min_tokens take and how many tokens fit.
absl::StatusOr<ActivationPlan> PlanActivations(const ForwardShape& shape,
                                               const ActivationRequest& request);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_ACTIVATION_LAYOUT_H_
