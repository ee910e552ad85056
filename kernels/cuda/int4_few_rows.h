// y = x W^T for few rows of x and an int4 W, where the product is bound by reading W.
//
// Deterministic. A row's result depends on that row and W alone, bit for bit among calls of up to
// 32 rows, and among those of more: the order of summation is another.
#ifndef QUIVER_KERNELS_CUDA_INT4_FEW_ROWS_H_
#define QUIVER_KERNELS_CUDA_INT4_FEW_ROWS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/int4_matrix.h"

namespace quiver {

// Far fewer are fast: every 64 read W anew.
inline constexpr int kMaxInt4Rows = 512;

// x and y are row-major, of the weight's type, aligned to 16 bytes. Strides are in elements from
// one row to the next; they and both sizes of the weight are multiples of 8.
struct Int4FewRowsTensors {
  const void* x = nullptr;  // [rows, weight.k]
  int64_t x_stride = 0;
  // May be read while the kernel before this one in the stream still runs, so that kernel and those
  // that overlap with it must not write it.
  Int4Matrix weight;
  void* y = nullptr;  // [rows, weight.n], not overlapping x
  int64_t y_stride = 0;
  int64_t rows = 0;  // at most kMaxInt4Rows
};

// Of W as ExpandInt4() has it. Accumulates in F32 and rounds once. cudaErrorInvalidValue for what
// is outside of the contract, cudaErrorNotSupported on devices that are not Hopper's.
cudaError_t Int4FewRows(const Int4FewRowsTensors& tensors, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_INT4_FEW_ROWS_H_
