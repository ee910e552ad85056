#include "kernels/cpu/norm.h"

#include "kernels/cpu/isa.h"
#include "kernels/cpu/norm_kernel.h"

namespace quiver::cpu {
namespace {

const NormKernel& Kernel() { return KernelFor(kNormGeneric, kNormAvx2, kNormAvx512); }

}  // namespace

void RmsNorm(const float* x, int64_t x_stride, int64_t rows, int64_t dim, const float* weight,
             float eps, float* y, int64_t y_stride, ThreadPool* pool) {
  const NormKernel& kernel = Kernel();
  ParallelForRows(pool, rows, [&](int64_t r) {
    kernel.rms(x + r * x_stride, dim, weight, eps, y + r * y_stride);
  });
}

void LayerNorm(const float* x, int64_t x_stride, int64_t rows, int64_t dim, const float* weight,
               const float* bias, float eps, float* y, int64_t y_stride, ThreadPool* pool) {
  const NormKernel& kernel = Kernel();
  ParallelForRows(pool, rows, [&](int64_t r) {
    kernel.layer(x + r * x_stride, dim, weight, bias, eps, y + r * y_stride);
  });
}

void AddRmsNorm(float* sum, int64_t sum_stride, const float* x, int64_t x_stride, int64_t rows,
                int64_t dim, const float* weight, float eps, float* y, int64_t y_stride,
                ThreadPool* pool) {
  const NormKernel& kernel = Kernel();
  ParallelForRows(pool, rows, [&](int64_t r) {
    kernel.add(sum + r * sum_stride, x + r * x_stride, dim);
    kernel.rms(sum + r * sum_stride, dim, weight, eps, y + r * y_stride);
  });
}

void AddLayerNorm(float* sum, int64_t sum_stride, const float* x, int64_t x_stride, int64_t rows,
                  int64_t dim, const float* weight, const float* bias, float eps, float* y,
                  int64_t y_stride, ThreadPool* pool) {
  const NormKernel& kernel = Kernel();
  ParallelForRows(pool, rows, [&](int64_t r) {
    kernel.add(sum + r * sum_stride, x + r * x_stride, dim);
    kernel.layer(sum + r * sum_stride, dim, weight, bias, eps, y + r * y_stride);
  });
}

}  // namespace quiver::cpu
