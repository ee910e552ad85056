#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "kernels/cuda/random_fill.h"

namespace quiver {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;

// The finalizer of SplitMix64: every bit of the result depends on every bit of the counter.
__device__ uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

__device__ void Store(float value, float* out) { *out = value; }
__device__ void Store(float value, __half* out) { *out = __float2half_rn(value); }
__device__ void Store(float value, __nv_bfloat16* out) { *out = __float2bfloat16_rn(value); }

template <typename T>
__global__ void RandomFillKernel(RandomUniform uniform, int64_t count, T* out) {
  const uint64_t stream = Mix(uniform.seed);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += step) {
    const uint64_t bits = Mix(stream ^ static_cast<uint64_t>(i));
    const float unit = static_cast<float>(bits >> 40) * (2.0f / (1 << 24)) - 1.0f;
    Store(uniform.mean + uniform.range * unit, out + i);
  }
}

template <typename T>
cudaError_t Fill(const RandomUniform& uniform, int64_t count, void* out, cudaStream_t stream) {
  const int64_t blocks = std::min((count + kThreads - 1) / kThreads, kMaxBlocks);
  RandomFillKernel<T><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(uniform, count,
                                                                              static_cast<T*>(out));
  return cudaGetLastError();
}

}  // namespace

cudaError_t RandomFill(const RandomUniform& uniform, cpu::StoredType type, int64_t count, void* out,
                       cudaStream_t stream) {
  if (count <= 0) return cudaSuccess;
  switch (type) {
    case cpu::StoredType::kF32:
      return Fill<float>(uniform, count, out, stream);
    case cpu::StoredType::kF16:
      return Fill<__half>(uniform, count, out, stream);
    case cpu::StoredType::kBF16:
      return Fill<__nv_bfloat16>(uniform, count, out, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace quiver
