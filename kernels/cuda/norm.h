// What stands between two matrix products: the residual takes the product before, and its
// normalization is the operand of the product after. One pass over the residual, in F32.
//
// Deterministic and batch-invariant: a row's result depends on that row alone, bit for bit. Bound
// by memory: each row of the residual is read and written once.
#ifndef QUIVER_KERNELS_CUDA_NORM_H_
#define QUIVER_KERNELS_CUDA_NORM_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/fp8.h"
#include "kernels/cuda/half_type.h"

namespace quiver {

// Row-major device matrices, aligned to 16 bytes, strides in elements from one row to the next and
// multiples of 8.
struct NormTensors {
  const float* residual = nullptr;  // [.., dim]
  int64_t residual_stride = 0;
  // Row i reads the residual's row `residual_rows[i]`, for work on pooled rows only; null: row i.
  // With it, `residual_out` must not overlap `residual`.
  const int32_t* residual_rows = nullptr;
  const void* delta = nullptr;  // [rows, dim] of `type`, what the residual takes; null: nothing
  int64_t delta_stride = 0;
  const float* delta_bias = nullptr;  // [dim], added along with delta; may be null
  float* residual_out = nullptr;      // [rows, dim], may be `residual`; null: not written
  int64_t residual_out_stride = 0;
  void* out = nullptr;  // [rows, dim] of `type`, may be `delta`; null: not written
  int64_t out_stride = 0;
  // Of AddRmsNorm: `out` in FP8, each row scaled for itself; may be where delta is, a row within
  // its own. Without codes: not written.
  Fp8Rows fp8 = {};
  int64_t rows = 0;
  int64_t dim = 0;  // a multiple of 8, at most 16384
  HalfType type = HalfType::kBf16;
};

// For pre-norm models (Qwen3). weight is [dim], F32.
//   sum = residual + delta + delta_bias
//   residual_out = sum
//   out = sum / sqrt(mean(sum^2) + eps) * weight
// cudaErrorInvalidValue for a shape, stride or alignment outside of the contract.
cudaError_t AddRmsNorm(const NormTensors& tensors, const float* weight, float eps,
                       cudaStream_t stream);

// For post-norm models (BERT). weight and bias are [dim], F32; var is that of the population, taken
// around the mean.
//   sum = residual + delta + delta_bias
//   residual_out = out = (sum - mean(sum)) / sqrt(var(sum) + eps) * weight + bias
cudaError_t AddLayerNorm(const NormTensors& tensors, const float* weight, const float* bias,
                         float eps, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_NORM_H_
