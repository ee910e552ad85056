// Work mapping: a block a row. Bound: bytes read and written; a row is read twice, the second time
// from the cache.
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/cuda/fp8.h"
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/launch.cuh"

namespace quiver {
namespace {

constexpr int kThreads = 256;
constexpr float kLargest = 448;
// Of a row's largest magnitude, so that its inverse is finite.
constexpr float kLeast = 1e-30f;

// The largest of the block's threads' values; NaN if one is.
__device__ float BlockMax(float value) {
  __shared__ float warps[kThreads / 32];
  // Magnitudes are in the order of their bits, NaN above all.
  uint32_t bits = __float_as_uint(value);
  bits = __reduce_max_sync(0xffffffff, bits);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = __uint_as_float(bits);
  __syncthreads();
  uint32_t most = 0;
#pragma unroll
  for (const float warp : warps) most = max(most, __float_as_uint(warp));
  return __uint_as_float(most);
}

__device__ __forceinline__ uint32_t Code(float value) {
  return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
}

__device__ __forceinline__ float Value(uint32_t code) {
  const __half_raw half = __nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(code), __NV_E4M3);
  return __half2float(__half(half));
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    QuantizeKernel(const T* x, int64_t stride, int64_t cols, uint2* codes, float* scales) {
  WaitForEarlierKernels();
  const int64_t row = blockIdx.x;
  const T* from = x + row * stride;
  float most = 0;
  for (int64_t c = 8 * threadIdx.x; c < cols; c += 8 * kThreads) {
    float value[8];
    Load8(from + c, value);
#pragma unroll
    for (const float v : value) {
      // As bits, for NaN's sake.
      most = __uint_as_float(max(__float_as_uint(most), __float_as_uint(fabsf(v))));
    }
  }
  most = BlockMax(most);
  // NaN stays.
  if (most < kLeast) most = kLeast;
  const float scale = most / kLargest;
  const float inverse = kLargest / most;
  for (int64_t c = 8 * threadIdx.x; c < cols; c += 8 * kThreads) {
    float value[8];
    Load8(from + c, value);
    uint32_t word[2] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) word[i / 4] |= Code(value[i] * inverse) << (i % 4 * 8);
    codes[(row * cols + c) / 8] = make_uint2(word[0], word[1]);
  }
  // Of infinity or NaN: a scale that spoils the row.
  if (threadIdx.x == 0) scales[row] = scale;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ExpandKernel(const uint2* codes, const float* scales, int64_t cols, T* out) {
  // Without letting the next kernel begin: one that multiplies by what is written here may read it
  // before it waits.
  AwaitEarlierKernels();
  const int64_t row = blockIdx.x;
  const float scale = scales[row];
  for (int64_t c = 8 * threadIdx.x; c < cols; c += 8 * kThreads) {
    const uint2 word = codes[(row * cols + c) / 8];
    float value[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      value[i] = Value((i < 4 ? word.x : word.y) >> (i % 4 * 8) & 255) * scale;
    }
    Store8(out + row * cols + c, value);
  }
  __threadfence();
}

// The finalizer of SplitMix64.
__device__ uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

__global__ void __launch_bounds__(kThreads)
    RandomKernel(float range, uint64_t seed, int64_t cols, uint8_t* codes, float* scales) {
  const int64_t row = blockIdx.x;
  const uint64_t stream = Mix(seed);
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
    const uint64_t bits = Mix(stream ^ static_cast<uint64_t>(row * cols + c));
    const float unit = static_cast<float>(bits >> 40) * (2.0f / (1 << 24)) - 1.0f;
    codes[row * cols + c] = static_cast<uint8_t>(Code(unit * kLargest));
  }
  if (threadIdx.x == 0) scales[row] = range / kLargest;
}

bool IsGrid(int64_t rows) { return rows > 0 && rows < (int64_t{1} << 31); }

}  // namespace

cudaError_t QuantizeRows(HalfType type, const void* x, int64_t stride, int64_t rows, int64_t cols,
                         void* codes, float* scales, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  if (!IsGrid(rows) || !IsVectorizable(x, stride, cols) || !IsVectorizable(codes, cols, cols) ||
      scales == nullptr) {
    return cudaErrorInvalidValue;
  }
  return WithHalf(type, [&](auto element) {
    using T = decltype(element);
    return Launch(QuantizeKernel<T>, dim3(static_cast<unsigned>(rows)), kThreads, 0, stream,
                  static_cast<const T*>(x), stride, cols, static_cast<uint2*>(codes), scales);
  });
}

cudaError_t ExpandFp8(HalfType type, const void* codes, const float* scales, int64_t rows,
                      int64_t cols, void* out, cudaStream_t stream) {
  if (!IsGrid(rows) || !IsVectorizable(out, cols, cols) || !IsVectorizable(codes, cols, cols) ||
      scales == nullptr) {
    return cudaErrorInvalidValue;
  }
  return WithHalf(type, [&](auto element) {
    using T = decltype(element);
    return Launch(ExpandKernel<T>, dim3(static_cast<unsigned>(rows)), kThreads, 0, stream,
                  static_cast<const uint2*>(codes), scales, cols, static_cast<T*>(out));
  });
}

cudaError_t RandomFp8(float range, uint64_t seed, int64_t rows, int64_t cols, void* codes,
                      float* scales, cudaStream_t stream) {
  if (!IsGrid(rows) || codes == nullptr || scales == nullptr) return cudaErrorInvalidValue;
  RandomKernel<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
      range, seed, cols, static_cast<uint8_t*>(codes), scales);
  return cudaGetLastError();
}

}  // namespace quiver
