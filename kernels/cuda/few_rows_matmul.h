// y = x W^T for few rows of x, where the product is bound by reading W: small batches, and the rows
// that are left of a last layer.
//
// Deterministic, and batch-invariant on one kind of device: a row's result depends on that row and
// W alone, bit for bit, whatever `rows` is. The order of summation follows from the weight's shape
// and the number of multiprocessors.
#ifndef QUIVER_KERNELS_CUDA_FEW_ROWS_MATMUL_H_
#define QUIVER_KERNELS_CUDA_FEW_ROWS_MATMUL_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/half_type.h"

namespace quiver {

inline constexpr int kMaxFewRows = 64;

// Row-major device matrices of one type, aligned to 16 bytes. Strides are in elements from one row
// to the next; they, `in_features` and `out_features` are multiples of 8.
struct FewRowsTensors {
  const void* x = nullptr;  // [rows, in_features]
  int64_t x_stride = 0;
  // [out_features, in_features], dense. May be read while the kernel before this one in the stream
  // still runs, so that kernel and those that overlap with it must not write it.
  const void* weight = nullptr;
  void* y = nullptr;  // [rows, out_features], not overlapping x
  int64_t y_stride = 0;
  int64_t rows = 0;          // at most kMaxFewRows
  int64_t out_features = 0;  // at most 524288
  int64_t in_features = 0;
  HalfType type = HalfType::kBf16;
  // Of FewRowsWorkspaceBytes(), aligned to 16 bytes, zero before the first call; calls leave behind
  // what the next one needs. Calls that may overlap in time need workspaces of their own.
  void* workspace = nullptr;
};

// What FewRowsMatmul() needs on a device of so many multiprocessors, whatever the shape.
size_t FewRowsWorkspaceBytes(int multiprocessors);

// Accumulates in F32 and rounds once. cudaErrorInvalidValue for what is outside of the contract.
cudaError_t FewRowsMatmul(const FewRowsTensors& tensors, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_FEW_ROWS_MATMUL_H_
