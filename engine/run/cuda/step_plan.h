// A pass as a list of operations, cut into steps of bounded length. Host arithmetic alone.
#ifndef QUIVER_ENGINE_RUN_CUDA_STEP_PLAN_H_
#define QUIVER_ENGINE_RUN_CUDA_STEP_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/run/cuda/forward_shape.h"
#include "kernels/cuda/attention.h"

namespace quiver {

// What a device is expected to reach, to cut steps by: not what it is measured by.
struct DeviceRates {
  double linear_flop_per_us = 0;
  double attention_flop_per_us = 0;

  // From the architecture's tensor operations a clock and the usual part of them that is reached.
  static DeviceRates Of(int compute_major, int compute_minor, int multiprocessors, int clock_khz,
                        AttentionPath path);
};

struct PassOp {
  enum class Kind : uint8_t {
    // For a chunk of tokens: embeddings, and the first layer's projection.
    kEmbed,
    // One launch of the layer's attention.
    kAttend,
    // For a chunk of tokens: the layer after attention, and the next one's projection.
    kFinish,
    // The last layer, pruned: queries of the pooled tokens, one launch of their attention, the
    // rest.
    kPooledQuery,
    kPooledAttend,
    kPooledFinish,
    // All layers in one launch, for all tokens.
    kDecode,
    // Vectors from the last layer's output.
    kEncode,
  };
  Kind kind = Kind::kEmbed;
  int layer = 0;
  // Rows [begin, begin + rows), or of a launch its number at `begin`.
  int64_t begin = 0;
  int64_t rows = 0;
  double us = 0;  // predicted
};

struct PassWork {
  int64_t tokens = 0;
  int64_t sequences = 0;
  int64_t chunk_tokens = 0;
  // Attention's launches: of every layer, and of a pruned last one.
  const std::vector<AttentionLaunch>* launches = nullptr;
  const std::vector<AttentionLaunch>* pooled_launches = nullptr;
};

// In order. Chunks of a batch are near each other in size and, but for the last, multiples of 128.
std::vector<PassOp> ListOps(const ForwardShape& shape, const PassWork& work,
                            const DeviceRates& rates);

// The ends of the steps, as indices into `ops`: as many operations as are predicted to take no
// longer than `max_us`, at least one.
std::vector<size_t> CutSteps(const std::vector<PassOp>& ops, double max_us);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_STEP_PLAN_H_
