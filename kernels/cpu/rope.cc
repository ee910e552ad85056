#include "kernels/cpu/rope.h"

#include <cmath>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/norm_kernel.h"

namespace quiver::cpu {

RopeTable::RopeTable(int64_t max_positions, int head_dim, double theta, ThreadPool* pool)
    : max_positions_(max_positions),
      half_(head_dim / 2),
      table_(static_cast<size_t>(2 * max_positions * half_)) {
  std::vector<float> inverse_frequency(static_cast<size_t>(half_));
  for (int i = 0; i < half_; ++i) {
    const double exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    inverse_frequency[i] = 1.0f / static_cast<float>(std::pow(theta, exponent));
  }
  ParallelFor(pool, max_positions, [&](int64_t position) {
    float* row = table_.data() + 2 * position * half_;
    for (int i = 0; i < half_; ++i) {
      const float angle = static_cast<float>(position) * inverse_frequency[i];
      row[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      row[half_ + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
  });
}

void QkNormRope(float* x, int64_t x_stride, int64_t rows, int num_heads, const float* weight,
                float eps, const int32_t* positions, const RopeTable& table, ThreadPool* pool) {
  const NormKernel& kernel = KernelFor(kNormGeneric, kNormAvx2, kNormAvx512);
  const int64_t head_dim = table.head_dim();
  ParallelForRows(pool, rows, [&](int64_t t) {
    const float* cos = table.cos(positions[t]);
    const float* sin = table.sin(positions[t]);
    for (int head = 0; head < num_heads; ++head) {
      float* h = x + t * x_stride + head * head_dim;
      if (weight != nullptr) kernel.rms(h, head_dim, weight, eps, h);
      kernel.rotate(h, head_dim / 2, cos, sin);
    }
  });
}

}  // namespace quiver::cpu
