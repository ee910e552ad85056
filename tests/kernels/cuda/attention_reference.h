// Attention in the plainest form, on the device, for comparison: F32 throughout, one warp for each
// query row and head, two passes over the keys.
#ifndef QUIVER_TESTS_KERNELS_CUDA_ATTENTION_REFERENCE_H_
#define QUIVER_TESTS_KERNELS_CUDA_ATTENTION_REFERENCE_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/attention.h"

namespace quiver {

// Fills `count` elements of `type` with uniform random values in [-amplitude, amplitude).
cudaError_t FillRandom(void* data, int64_t count, AttentionType type, float amplitude,
                       uint32_t seed, cudaStream_t stream);

// As Attention(), for all `rows`, into F32 `out` [q_rows, num_heads, head_dim] (packed). `rows` is
// on the device. Only q, k, v and their strides are read of `tensors`.
cudaError_t ReferenceAttention(const AttentionShape& shape, const AttentionTensors& tensors,
                               const AttentionRows* rows, int num_rows_entries, int max_rows,
                               float scale, float* out, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_TESTS_KERNELS_CUDA_ATTENTION_REFERENCE_H_
