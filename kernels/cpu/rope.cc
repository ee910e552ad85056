#include "kernels/cpu/rope.h"

#include <cmath>

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
  const int head_dim = table.head_dim();
  const int half = head_dim / 2;
  ParallelFor(pool, rows, [&](int64_t t) {
    const float* cos = table.cos(positions[t]);
    const float* sin = table.sin(positions[t]);
    for (int head = 0; head < num_heads; ++head) {
      float* h = x + t * x_stride + static_cast<int64_t>(head) * head_dim;
      if (weight != nullptr) {
        float square_sum = 0.0f;
        for (int i = 0; i < head_dim; ++i) square_sum += h[i] * h[i];
        const float factor = 1.0f / std::sqrt(square_sum / static_cast<float>(head_dim) + eps);
        for (int i = 0; i < head_dim; ++i) h[i] *= factor * weight[i];
      }
      for (int i = 0; i < half; ++i) {
        const float first = h[i];
        const float second = h[half + i];
        h[i] = first * cos[i] - second * sin[i];
        h[half + i] = second * cos[i] + first * sin[i];
      }
    }
  });
}

}  // namespace quiver::cpu
