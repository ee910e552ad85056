// Rotary position embedding as Qwen3 has it, fused with the RMSNorm per head that comes before it.
#ifndef QUIVER_KERNELS_CPU_ROPE_H_
#define QUIVER_KERNELS_CPU_ROPE_H_

#include <cstdint>
#include <vector>

#include "kernels/cpu/thread_pool.h"

namespace quiver::cpu {

// cos and sin of position * theta^(-2i / head_dim). As in `transformers`, the inverse frequency and
// its product with the position are rounded to F32 before the cosine and sine are taken; these are
// computed in double and rounded.
class RopeTable {
 public:
  // `head_dim` is even. Takes 4 * head_dim bytes a position.
  RopeTable(int64_t max_positions, int head_dim, double theta, ThreadPool* pool);

  int64_t max_positions() const { return max_positions_; }
  int head_dim() const { return 2 * half_; }
  // [head_dim / 2] each.
  const float* cos(int64_t position) const { return table_.data() + 2 * position * half_; }
  const float* sin(int64_t position) const { return cos(position) + half_; }

 private:
  int64_t max_positions_;
  int half_;
  std::vector<float> table_;
};

// For each of `rows` tokens and each of `num_heads` heads, in place:
//   h = h / sqrt(mean(h^2) + eps) * weight      (left out if `weight` is null)
//   h = h * [cos, cos] + [-h2, h1] * [sin, sin] (h1, h2: the two halves of h)
// Head i of token t is at x + t * x_stride + i * head_dim; weight is [head_dim]; positions[t] is
// the token's position within its sequence, below table.max_positions().
void QkNormRope(float* x, int64_t x_stride, int64_t rows, int num_heads, const float* weight,
                float eps, const int32_t* positions, const RopeTable& table, ThreadPool* pool);

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_ROPE_H_
