// y = x W^T for few rows of x, of 16 bits, and a W of FP8 (E4M3), where the product is bound by
// reading W.
//
// Deterministic. A row's result depends on that row and W alone, bit for bit among calls of up to
// 32 rows, and among those of more: the order of summation is another.
#ifndef QUIVER_KERNELS_CUDA_FP8_FEW_ROWS_H_
#define QUIVER_KERNELS_CUDA_FP8_FEW_ROWS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/half_type.h"

namespace quiver {

// Far fewer are fast: every 64 read W anew.
inline constexpr int kMaxFp8Rows = 512;

// x and y are row-major, of `type`; all are aligned to 16 bytes. Strides are in elements from one
// row to the next, multiples of 8; both sizes of W are multiples of 16.
struct Fp8FewRowsTensors {
  const void* x = nullptr;  // [rows, in_features]
  int64_t x_stride = 0;
  // [out_features, in_features], dense. No NaN. Codes may be read while the kernel before this one
  // in the stream still runs, so that kernel and those that overlap with it must not write them.
  const void* codes = nullptr;
  const float* scales = nullptr;  // [out_features]
  void* y = nullptr;              // [rows, out_features], not overlapping x
  int64_t y_stride = 0;
  int64_t rows = 0;  // at most kMaxFp8Rows
  int64_t out_features = 0;
  int64_t in_features = 0;
  HalfType type = HalfType::kBf16;
};

// An element of W is code * scales[row]. Accumulates x times codes in F32, scales the sum, and
// rounds once. cudaErrorInvalidValue for what is outside of the contract, cudaErrorNotSupported on
// devices that are not Hopper's.
cudaError_t Fp8FewRows(const Fp8FewRowsTensors& tensors, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_FP8_FEW_ROWS_H_
