// Models' sizes that several tests plan for.
#ifndef QUIVER_TESTS_ENGINE_RUN_CUDA_SHAPES_H_
#define QUIVER_TESTS_ENGINE_RUN_CUDA_SHAPES_H_

#include "engine/run/cuda/forward_shape.h"

namespace quiver {

// Qwen3-Embedding-4B.
inline ForwardShape Shape4B() {
  return {.hidden = 2560,
          .inner_width = 2 * 9728,
          .inner = 9728,
          .num_layers = 36,
          .num_heads = 32,
          .num_kv_heads = 8,
          .head_dim = 128,
          .causal = true,
          .prune_last = true};
}

// all-MiniLM-L6-v2.
inline ForwardShape ShapeMiniLm() {
  return {.hidden = 384,
          .inner_width = 1536,
          .inner = 1536,
          .num_layers = 6,
          .num_heads = 12,
          .num_kv_heads = 12,
          .head_dim = 32,
          .causal = false,
          .prune_last = false};
}

}  // namespace quiver

#endif  // QUIVER_TESTS_ENGINE_RUN_CUDA_SHAPES_H_
