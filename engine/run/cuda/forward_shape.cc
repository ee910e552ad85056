#include "engine/run/cuda/forward_shape.h"

#include "absl/strings/str_cat.h"

namespace quiver {
namespace {

// The kernels': 16-byte accesses of 16-bit elements, and norms and pooling of one row a block.
constexpr int kWidthMultiple = 8;
constexpr int kMaxHidden = 8192;

}  // namespace

absl::StatusOr<ForwardShape> ForwardShapeOf(const ModelConfig& config) {
  const bool qwen3 = config.family == Family::kQwen3;
  const int dim = config.head_dim;
  if (dim != 64 && dim != 128 && (qwen3 || dim != 32)) {
    return absl::UnimplementedError(absl::StrCat("config.json: the head dimension must be ",
                                                 qwen3 ? "64 or 128" : "32, 64 or 128",
                                                 " on CUDA, is ", dim));
  }
  if (config.hidden_size % kWidthMultiple != 0 || config.hidden_size > kMaxHidden) {
    return absl::UnimplementedError(absl::StrCat("config.json: hidden_size must be a multiple of ",
                                                 kWidthMultiple, " and at most ", kMaxHidden,
                                                 " on CUDA, is ", config.hidden_size));
  }
  if (config.intermediate_size % kWidthMultiple != 0) {
    return absl::UnimplementedError(
        absl::StrCat("config.json: intermediate_size must be a multiple of ", kWidthMultiple,
                     " on CUDA, is ", config.intermediate_size));
  }
  if (qwen3 && config.activation != Activation::kSilu) {
    return absl::UnimplementedError("config.json: hidden_act must be silu for this family on CUDA");
  }
  ForwardShape shape;
  shape.hidden = config.hidden_size;
  shape.inner = config.intermediate_size;
  shape.inner_width = qwen3 ? 2 * shape.inner : shape.inner;
  shape.num_layers = config.num_layers;
  shape.num_heads = config.num_heads;
  shape.num_kv_heads = config.num_kv_heads;
  shape.head_dim = dim;
  shape.causal = qwen3;
  shape.prune_last = config.pooling != Pooling::kMean;
  return shape;
}

}  // namespace quiver
