// Normalization of rows, in F32. A row's result depends on that row alone (fixed order of
// summation), so it is bit-identical whatever the number of rows and threads.
//
// Matrices are row-major [rows, dim] with the stride between rows in elements; y may be x. No
// alignment is asked for.
#ifndef QUIVER_KERNELS_CPU_NORM_H_
#define QUIVER_KERNELS_CPU_NORM_H_

#include <cstdint>

#include "kernels/cpu/thread_pool.h"

namespace quiver::cpu {

// y = x / sqrt(mean(x^2) + eps) * weight; weight is [dim].
void RmsNorm(const float* x, int64_t x_stride, int64_t rows, int64_t dim, const float* weight,
             float eps, float* y, int64_t y_stride, ThreadPool* pool);

// y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias; weight and bias are [dim], var is that of
// the population, taken around the mean.
void LayerNorm(const float* x, int64_t x_stride, int64_t rows, int64_t dim, const float* weight,
               const float* bias, float eps, float* y, int64_t y_stride, ThreadPool* pool);

// sum += x, then y = RmsNorm(sum) or LayerNorm(sum). For residuals that no Matmul's epilogue adds.
// y may be x or sum.
void AddRmsNorm(float* sum, int64_t sum_stride, const float* x, int64_t x_stride, int64_t rows,
                int64_t dim, const float* weight, float eps, float* y, int64_t y_stride,
                ThreadPool* pool);
void AddLayerNorm(float* sum, int64_t sum_stride, const float* x, int64_t x_stride, int64_t rows,
                  int64_t dim, const float* weight, const float* bias, float eps, float* y,
                  int64_t y_stride, ThreadPool* pool);

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_NORM_H_
