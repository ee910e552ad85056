#include "kernels/cpu/norm.h"

#include <cmath>

namespace quiver::cpu {
namespace {

void RmsNormRow(const float* x, int64_t dim, const float* weight, float eps, float* y) {
  float square_sum = 0.0f;
  for (int64_t i = 0; i < dim; ++i) square_sum += x[i] * x[i];
  const float factor = 1.0f / std::sqrt(square_sum / static_cast<float>(dim) + eps);
  for (int64_t i = 0; i < dim; ++i) y[i] = x[i] * factor * weight[i];
}

void LayerNormRow(const float* x, int64_t dim, const float* weight, const float* bias, float eps,
                  float* y) {
  float sum = 0.0f;
  for (int64_t i = 0; i < dim; ++i) sum += x[i];
  const float mean = sum / static_cast<float>(dim);
  float square_sum = 0.0f;
  for (int64_t i = 0; i < dim; ++i) square_sum += (x[i] - mean) * (x[i] - mean);
  const float factor = 1.0f / std::sqrt(square_sum / static_cast<float>(dim) + eps);
  for (int64_t i = 0; i < dim; ++i) y[i] = (x[i] - mean) * factor * weight[i] + bias[i];
}

void AddRow(float* sum, const float* x, int64_t dim) {
  for (int64_t i = 0; i < dim; ++i) sum[i] += x[i];
}

}  // namespace

void RmsNorm(const float* x, int64_t x_stride, int64_t rows, int64_t dim, const float* weight,
             float eps, float* y, int64_t y_stride, ThreadPool* pool) {
  ParallelFor(pool, rows,
              [&](int64_t r) { RmsNormRow(x + r * x_stride, dim, weight, eps, y + r * y_stride); });
}

void LayerNorm(const float* x, int64_t x_stride, int64_t rows, int64_t dim, const float* weight,
               const float* bias, float eps, float* y, int64_t y_stride, ThreadPool* pool) {
  ParallelFor(pool, rows, [&](int64_t r) {
    LayerNormRow(x + r * x_stride, dim, weight, bias, eps, y + r * y_stride);
  });
}

void AddRmsNorm(float* sum, int64_t sum_stride, const float* x, int64_t x_stride, int64_t rows,
                int64_t dim, const float* weight, float eps, float* y, int64_t y_stride,
                ThreadPool* pool) {
  ParallelFor(pool, rows, [&](int64_t r) {
    AddRow(sum + r * sum_stride, x + r * x_stride, dim);
    RmsNormRow(sum + r * sum_stride, dim, weight, eps, y + r * y_stride);
  });
}

void AddLayerNorm(float* sum, int64_t sum_stride, const float* x, int64_t x_stride, int64_t rows,
                  int64_t dim, const float* weight, const float* bias, float eps, float* y,
                  int64_t y_stride, ThreadPool* pool) {
  ParallelFor(pool, rows, [&](int64_t r) {
    AddRow(sum + r * sum_stride, x + r * x_stride, dim);
    LayerNormRow(sum + r * sum_stride, dim, weight, bias, eps, y + r * y_stride);
  });
}

}  // namespace quiver::cpu
