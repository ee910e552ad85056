// Rotary position embedding as Qwen3 has it, fused with the RMSNorm per head that comes before it.
#ifndef QUIVER_KERNELS_CUDA_ROPE_H_
#define QUIVER_KERNELS_CUDA_ROPE_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/half_type.h"

namespace quiver {

// Floats in a table: for each position head_dim / 2 cosines, then as many sines.
constexpr int64_t RopeTableFloats(int64_t max_positions, int head_dim) {
  return max_positions * head_dim;
}

// Fills `table` with cos and sin of position * theta^(-2i / head_dim). As in `transformers`, the
// inverse frequency and its product with the position are rounded to F32 before the cosine and
// sine are taken; these are computed in double and rounded.
cudaError_t MakeRopeTable(float* table, int64_t max_positions, int head_dim, double theta,
                          cudaStream_t stream);

struct QkNormRopeShape {
  int64_t rows = 0;
  int num_heads = 0;     // query heads; 0 if the rows have none
  int num_kv_heads = 0;  // key heads, which follow them; 0 if the rows have none
  int head_dim = 0;      // 64 or 128
  HalfType type = HalfType::kBf16;
};

// For each row and each query and key head h, in place, in F32:
//   h = h / sqrt(mean(h^2) + eps) * weight      (left out if the weight is null)
//   h = h * [cos, cos] + [-h2, h1] * [sin, sin] (h1, h2: the two halves of h)
// Row t is [query heads | key heads | ...] at qkv + t * stride; what follows the key heads is left
// as it is. q_weight and k_weight are [head_dim], F32; positions[t] is the token's position within
// its sequence, below the table's max_positions. qkv is aligned to 16 bytes and stride, in
// elements, a multiple of 8. Each head depends on itself alone.
cudaError_t QkNormRope(const QkNormRopeShape& shape, void* qkv, int64_t stride,
                       const float* q_weight, const float* k_weight, float eps,
                       const int32_t* positions, const float* table, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_ROPE_H_
