#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "tests/kernels/cuda/attention_reference.h"

namespace quiver {
namespace {

__device__ uint32_t Hash(uint64_t x) {
  x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
  return static_cast<uint32_t>(x >> 32);
}

template <typename T>
__global__ void FillKernel(T* data, int64_t count, float amplitude, uint32_t seed) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    const uint32_t bits = Hash(static_cast<uint64_t>(i) + (static_cast<uint64_t>(seed) << 40) + 1);
    data[i] = static_cast<T>((bits * 0x1p-31f - 1.0f) * amplitude);
  }
}

template <typename T>
__global__ void ReferenceKernel(AttentionShape shape, AttentionTensors tensors,
                                const AttentionRows* rows, float scale, float* out) {
  const AttentionRows run = rows[blockIdx.z];
  const int row = blockIdx.x;
  const int head = blockIdx.y;
  if (row >= run.num_rows) return;
  const int kv_head = head / (shape.num_heads / shape.num_kv_heads);
  const int lane = threadIdx.x;
  const int dim = shape.head_dim;
  const T* q = static_cast<const T*>(tensors.q) + (run.q_row + row) * tensors.q_stride + head * dim;
  const T* k = static_cast<const T*>(tensors.k) + run.kv_row * tensors.k_stride + kv_head * dim;
  const T* v = static_cast<const T*>(tensors.v) + run.kv_row * tensors.v_stride + kv_head * dim;
  const int keys = shape.causal ? min(run.kv_rows, run.q_position + row + 1) : run.kv_rows;

  float query[4] = {};
  for (int i = 0; i < dim / 32; ++i) query[i] = static_cast<float>(q[lane + 32 * i]);
  const auto score = [&](int key) {
    float sum = 0;
    for (int i = 0; i < dim / 32; ++i) {
      sum += query[i] * static_cast<float>(k[key * tensors.k_stride + lane + 32 * i]);
    }
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    return sum * scale;
  };
  float top = -INFINITY;
  for (int key = 0; key < keys; ++key) top = fmaxf(top, score(key));
  float total = 0;
  float acc[4] = {};
  for (int key = 0; key < keys; ++key) {
    const float weight = expf(score(key) - top);
    total += weight;
    for (int i = 0; i < dim / 32; ++i) {
      acc[i] += weight * static_cast<float>(v[key * tensors.v_stride + lane + 32 * i]);
    }
  }
  float* to = out + (static_cast<int64_t>(run.q_row + row) * shape.num_heads + head) * dim;
  for (int i = 0; i < dim / 32; ++i) to[lane + 32 * i] = acc[i] / total;
}

}  // namespace

cudaError_t FillRandom(void* data, int64_t count, AttentionType type, float amplitude,
                       uint32_t seed, cudaStream_t stream) {
  if (type == AttentionType::kF16) {
    FillKernel<<<1024, 256, 0, stream>>>(static_cast<__half*>(data), count, amplitude, seed);
  } else {
    FillKernel<<<1024, 256, 0, stream>>>(static_cast<__nv_bfloat16*>(data), count, amplitude, seed);
  }
  return cudaGetLastError();
}

cudaError_t ReferenceAttention(const AttentionShape& shape, const AttentionTensors& tensors,
                               const AttentionRows* rows, int num_rows_entries, int max_rows,
                               float scale, float* out, cudaStream_t stream) {
  const dim3 grid(max_rows, shape.num_heads, num_rows_entries);
  if (shape.type == AttentionType::kF16) {
    ReferenceKernel<__half><<<grid, 32, 0, stream>>>(shape, tensors, rows, scale, out);
  } else {
    ReferenceKernel<__nv_bfloat16><<<grid, 32, 0, stream>>>(shape, tensors, rows, scale, out);
  }
  return cudaGetLastError();
}

}  // namespace quiver
