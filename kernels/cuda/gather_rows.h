// Rows of a matrix on the device, one under another: what work on pooled tokens begins with.
#ifndef QUIVER_KERNELS_CUDA_GATHER_ROWS_H_
#define QUIVER_KERNELS_CUDA_GATHER_ROWS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace quiver {

// out[i] = source[rows[i]] for i < num_rows; strides and the part of each row that is copied in
// bytes, multiples of 16 as the addresses are.
cudaError_t GatherRows(const void* source, int64_t source_stride_bytes, const int32_t* rows,
                       int64_t num_rows, int64_t row_bytes, void* out, int64_t out_stride_bytes,
                       cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_GATHER_ROWS_H_
