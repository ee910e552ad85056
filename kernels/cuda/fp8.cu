// Work mapping: a block a row. Bound: bytes read and written.
#include <cstdint>

#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/fp8_row.cuh"
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/launch.cuh"

namespace quiver {
namespace {

constexpr int kThreads = 256;
__device__ __forceinline__ float Value(uint32_t code) {
  const __half_raw half = __nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(code), __NV_E4M3);
  return __half2float(__half(half));
}

template <typename T, int kPieces>
__global__ void __launch_bounds__(fp8::kMaxRowThreads)
    QuantizeKernel(const T* x, int64_t stride, int cols, Fp8Rows out) {
  WaitForEarlierKernels();
  const int64_t row = blockIdx.x;
  const T* from = x + row * stride;
  fp8::QuantizeRow<kPieces>(row, cols, out,
                            [&](int column, float(&value)[8]) { Load8(from + column, value); });
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
    codes[row * cols + c] = static_cast<uint8_t>(fp8::Code(unit * fp8::kLargest));
  }
  if (threadIdx.x == 0) scales[row] = range / fp8::kLargest;
}

bool IsGrid(int64_t rows) { return rows > 0 && rows < (int64_t{1} << 31); }

}  // namespace

cudaError_t QuantizeRows(HalfType type, const void* x, int64_t stride, int64_t rows, int64_t cols,
                         const Fp8Rows& out, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  if (!IsGrid(rows) || !IsVectorizable(x, stride, cols) ||
      !IsVectorizable(out.codes, out.stride, cols) || out.scales == nullptr ||
      cols > kMaxFp8Columns) {
    return cudaErrorInvalidValue;
  }
  const fp8::RowSplit split(cols);
  return WithHalf(type, [&](auto element) {
    using T = decltype(element);
    const auto kernel = split.pieces == 1   ? QuantizeKernel<T, 1>
                        : split.pieces == 2 ? QuantizeKernel<T, 2>
                        : split.pieces == 3 ? QuantizeKernel<T, 3>
                                            : QuantizeKernel<T, 4>;
    return Launch(kernel, dim3(static_cast<unsigned>(rows)), split.threads, 0, stream,
                  static_cast<const T*>(x), stride, static_cast<int>(cols), out);
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
