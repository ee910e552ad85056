// Rows of embedding tables on the device, widened to F32 and summed: the start of the residual.
//
// Device pointers, aligned to 16 bytes; `dim` is a multiple of 8. Each row's result depends on that
// row alone.
#ifndef QUIVER_KERNELS_CUDA_EMBEDDING_H_
#define QUIVER_KERNELS_CUDA_EMBEDDING_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cpu/stored_type.h"

namespace quiver {

// A dense table [rows, dim] as a checkpoint stores it. Empty if `data` is null.
struct DeviceTable {
  cpu::StoredType type = cpu::StoredType::kBF16;
  const void* data = nullptr;
};

// out[t] = tokens[ids[t]] + type[0] + position[positions[t]], in that order, for `rows` tokens.
// `type` (row 0: every token is of the first segment) and `position` may be empty; then `positions`
// is not read. Indices must lie within their tables. `out_stride`, in elements, is a multiple of 4.
cudaError_t Embed(const DeviceTable& tokens, const DeviceTable& type, const DeviceTable& position,
                  const int32_t* ids, const int32_t* positions, int64_t rows, int64_t dim,
                  float* out, int64_t out_stride, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_EMBEDDING_H_
