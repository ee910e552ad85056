#include <climits>
#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_kernels.h"

namespace quiver {
namespace {

bool IsAligned(const void* pointer, int64_t stride, int64_t columns) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride % 8 == 0 &&
         stride >= columns;
}

bool IsValid(const AttentionShape& shape, const AttentionLaunch& launch,
             const AttentionTensors& tensors) {
  if (shape.head_dim != 32 && shape.head_dim != 64 && shape.head_dim != 128) return false;
  if (shape.num_kv_heads <= 0 || shape.num_heads <= 0) return false;
  if (shape.num_heads % shape.num_kv_heads != 0) return false;
  const int group = shape.num_heads / shape.num_kv_heads;
  const int64_t q_columns = static_cast<int64_t>(shape.num_heads) * shape.head_dim;
  const int64_t kv_columns = static_cast<int64_t>(shape.num_kv_heads) * shape.head_dim;
  return IsAligned(tensors.q, tensors.q_stride, q_columns) &&
         IsAligned(tensors.out, tensors.out_stride, q_columns) &&
         IsAligned(tensors.k, tensors.k_stride, kv_columns) &&
         IsAligned(tensors.v, tensors.v_stride, kv_columns) && tensors.q_rows > 0 &&
         tensors.kv_rows > 0 && tensors.tiles != nullptr && launch.first_tile >= 0 &&
         launch.first_head >= 0 && launch.num_heads > 0 && launch.first_head % group == 0 &&
         launch.num_heads % group == 0 && launch.first_head + launch.num_heads <= shape.num_heads &&
         static_cast<int64_t>(launch.num_tiles) * launch.num_heads <= INT_MAX;
}

}  // namespace

cudaError_t BestAttentionPath(AttentionPath* path) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  int major = 0;
  error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  *path = major == 9 ? AttentionPath::kHopper : AttentionPath::kPortable;
  return cudaSuccess;
}

cudaError_t Attention(const AttentionShape& shape, const AttentionLaunch& launch,
                      const AttentionTensors& tensors, float scale, cudaStream_t stream) {
  if (!IsValid(shape, launch, tensors)) return cudaErrorInvalidValue;
  if (launch.num_tiles <= 0) return cudaSuccess;
  if (launch.kernel == AttentionKernel::kHopper) {
    return AttentionSm90(shape, launch, tensors, scale, stream);
  }
  return AttentionSm80(shape, launch, tensors, scale, stream);
}

}  // namespace quiver
