// The kernels behind attention.h; only attention.cu and their own files include this.
#ifndef QUIVER_KERNELS_CUDA_ATTENTION_KERNELS_H_
#define QUIVER_KERNELS_CUDA_ATTENTION_KERNELS_H_

#include <cuda_runtime_api.h>

#include "kernels/cuda/attention.h"

namespace quiver {

// log2(e): softmax is computed with exp2, and the factor folded into the scale.
inline constexpr float kLog2E = 1.4426950408889634f;

// mma.sync kernels, attention_sm80.cu: launch.kernel is kShort or kPortable.
cudaError_t AttentionSm80(const AttentionShape& shape, const AttentionLaunch& launch,
                          const AttentionTensors& tensors, float scale, cudaStream_t stream);

// wgmma kernel, attention_sm90.cu; head_dim 128.
cudaError_t AttentionSm90(const AttentionShape& shape, const AttentionLaunch& launch,
                          const AttentionTensors& tensors, float scale, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_ATTENTION_KERNELS_H_
