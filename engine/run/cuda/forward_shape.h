// The sizes of a model's forward pass as the CUDA backend runs it.
#ifndef QUIVER_ENGINE_RUN_CUDA_FORWARD_SHAPE_H_
#define QUIVER_ENGINE_RUN_CUDA_FORWARD_SHAPE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"

namespace quiver {

struct ForwardShape {
  int64_t hidden = 0;
  // Columns of the MLP's first product, and of its second's input: twice as many where it is gated.
  int64_t inner_width = 0;
  int64_t inner = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  bool causal = false;
  // Whether the last layer runs for one token of each sequence but for keys and values.
  bool prune_last = false;

  int64_t query_width() const { return int64_t{num_heads} * head_dim; }
  int64_t key_width() const { return int64_t{num_kv_heads} * head_dim; }
  // Columns of a layer's projection [query | key | value].
  int64_t projection_width() const { return query_width() + 2 * key_width(); }
  // Elements of a layer's matrices: the projection alone, and what follows attention.
  int64_t projection_weights() const { return hidden * projection_width(); }
  int64_t finish_weights() const { return hidden * (query_width() + inner_width + inner); }
};

// UNIMPLEMENTED names the key of config.json that the CUDA backend does not run.
absl::StatusOr<ForwardShape> ForwardShapeOf(const ModelConfig& config);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_FORWARD_SHAPE_H_
