// Work mapping: a thread takes eight neighbouring elements of one row; of SwiGluFp8 a block has a
// row.
//
// Bound: bytes, 6 an element for SwiGlu, 5 for SwiGluFp8 and 4 for BiasActivate.
#include <algorithm>
#include <climits>
#include <cstdint>

#include "kernels/cuda/activation.h"
#include "kernels/cuda/fp8_row.cuh"
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/launch.cuh"

namespace quiver {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxGridRows = 65535;

__device__ __forceinline__ float Silu(float x) { return x / (1.0f + expf(-x)); }

// x (1 + erf(x / sqrt(2))) / 2 as max(x, 0) - |x| erfc(|x| / sqrt(2)) / 2, which keeps the left
// tail's digits. erfc(z) = t P(t) exp(-z^2) with t = 1 / (1 + z / 2), the form of Abramowitz and
// Stegun, 7.1.26; P is the polynomial with the least relative error for z up to 9.5, 1.2e-6.
// erfcf() takes longer than the bytes.
__device__ __forceinline__ float Gelu(float x) {
  const float size = fabsf(x);
  float t;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(t) : "f"(fmaf(0.35355339f, size, 1.0f)));
  float p = 0.0891242847f;
  p = fmaf(p, t, -0.359981626f);
  p = fmaf(p, t, 0.393772811f);
  p = fmaf(p, t, 0.0346635431f);
  p = fmaf(p, t, 0.282717675f);
  p = fmaf(p, t, 0.277354032f);
  p = fmaf(p, t, 0.282348067f);
  float decay;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(decay) : "f"(-0.72134752f * x * x));
  const float tail = 0.5f * size * (p * t * decay);
  return fmaxf(x, 0.0f) - (size > 30.0f ? 0.0f : tail);
}

template <cpu::Activation kActivation>
__device__ __forceinline__ float Activated(float x) {
  if constexpr (kActivation == cpu::Activation::kGelu) {
    return Gelu(x);
  } else if constexpr (kActivation == cpu::Activation::kGeluTanh) {
    const float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
    return x / (1.0f + expf(-2.0f * inner));
  } else if constexpr (kActivation == cpu::Activation::kSilu) {
    return Silu(x);
  } else if constexpr (kActivation == cpu::Activation::kRelu) {
    return x < 0.0f ? 0.0f : x;
  } else {
    return x;
  }
}

template <typename T>
__global__ void SwiGluKernel(const T* gate_up, int64_t gate_up_stride, int64_t rows, int cols,
                             T* out, int64_t out_stride) {
  const int column = 8 * static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  WaitForEarlierKernels();
  if (column >= cols) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const T* from = gate_up + row * gate_up_stride + column;
    float gate[8];
    float up[8];
    Load8(from, gate);
    Load8(from + cols, up);
#pragma unroll
    for (int i = 0; i < 8; ++i) gate[i] = Silu(gate[i]) * up[i];
    Store8(out + row * out_stride + column, gate);
  }
}

template <typename T, int kPieces>
__global__ void __launch_bounds__(fp8::kMaxRowThreads)
    SwiGluFp8Kernel(const T* gate_up, int64_t gate_up_stride, int cols, Fp8Rows out) {
  WaitForEarlierKernels();
  const int64_t row = blockIdx.x;
  const T* from = gate_up + row * gate_up_stride;
  fp8::QuantizeRow<kPieces>(row, cols, out, [&](int column, float(&value)[8]) {
    float up[8];
    Load8(from + column, value);
    Load8(from + cols + column, up);
#pragma unroll
    for (int i = 0; i < 8; ++i) value[i] = Silu(value[i]) * up[i];
  });
}

template <typename T, cpu::Activation kActivation>
__global__ void BiasActivateKernel(const float* bias, int64_t rows, int cols, T* x,
                                   int64_t x_stride) {
  const int column = 8 * static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  WaitForEarlierKernels();
  if (column >= cols) return;
  float added[8] = {};
  if (bias != nullptr) {
#pragma unroll
    for (int i = 0; i < 8; ++i) added[i] = bias[column + i];
  }
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    T* at = x + row * x_stride + column;
    float value[8];
    Load8(at, value);
#pragma unroll
    for (int i = 0; i < 8; ++i) value[i] = Activated<kActivation>(value[i] + added[i]);
    Store8(at, value);
  }
}

dim3 Grid(int64_t rows, int64_t cols) {
  return dim3(static_cast<unsigned>((cols + 8 * kThreads - 1) / (8 * kThreads)),
              static_cast<unsigned>(std::min(rows, kMaxGridRows)));
}

template <cpu::Activation kActivation>
cudaError_t LaunchBiasActivate(const float* bias, int64_t rows, int64_t cols, void* x,
                               int64_t x_stride, HalfType type, cudaStream_t stream) {
  return WithHalf(type, [&](auto element) {
    using T = decltype(element);
    return Launch(BiasActivateKernel<T, kActivation>, Grid(rows, cols), kThreads, 0, stream, bias,
                  rows, static_cast<int>(cols), static_cast<T*>(x), x_stride);
  });
}

}  // namespace

cudaError_t SwiGlu(const void* gate_up, int64_t gate_up_stride, int64_t rows, int64_t cols,
                   void* out, int64_t out_stride, HalfType type, cudaStream_t stream) {
  if (!IsVectorizable(gate_up, gate_up_stride, 2 * cols) ||
      !IsVectorizable(out, out_stride, cols) || cols > INT_MAX / 16) {
    return cudaErrorInvalidValue;
  }
  if (rows <= 0) return cudaSuccess;
  return WithHalf(type, [&](auto element) {
    using T = decltype(element);
    return Launch(SwiGluKernel<T>, Grid(rows, cols), kThreads, 0, stream,
                  static_cast<const T*>(gate_up), gate_up_stride, rows, static_cast<int>(cols),
                  static_cast<T*>(out), out_stride);
  });
}

cudaError_t SwiGluFp8(const void* gate_up, int64_t gate_up_stride, int64_t rows, int64_t cols,
                      const Fp8Rows& out, HalfType type, cudaStream_t stream) {
  if (!IsVectorizable(gate_up, gate_up_stride, 2 * cols) ||
      !IsVectorizable(out.codes, out.stride, cols) || out.scales == nullptr ||
      cols > kMaxFp8Columns || rows > INT_MAX) {
    return cudaErrorInvalidValue;
  }
  if (rows <= 0) return cudaSuccess;
  const fp8::RowSplit split(cols);
  return WithHalf(type, [&](auto element) {
    using T = decltype(element);
    const auto kernel = split.pieces == 1   ? SwiGluFp8Kernel<T, 1>
                        : split.pieces == 2 ? SwiGluFp8Kernel<T, 2>
                        : split.pieces == 3 ? SwiGluFp8Kernel<T, 3>
                                            : SwiGluFp8Kernel<T, 4>;
    return Launch(kernel, dim3(static_cast<unsigned>(rows)), split.threads, 0, stream,
                  static_cast<const T*>(gate_up), gate_up_stride, static_cast<int>(cols), out);
  });
}

cudaError_t BiasActivate(cpu::Activation activation, const float* bias, int64_t rows, int64_t cols,
                         void* x, int64_t x_stride, HalfType type, cudaStream_t stream) {
  if (!IsVectorizable(x, x_stride, cols) || cols > INT_MAX / 16) return cudaErrorInvalidValue;
  if (rows <= 0) return cudaSuccess;
  switch (activation) {
    case cpu::Activation::kNone:
      return LaunchBiasActivate<cpu::Activation::kNone>(bias, rows, cols, x, x_stride, type,
                                                        stream);
    case cpu::Activation::kGelu:
      return LaunchBiasActivate<cpu::Activation::kGelu>(bias, rows, cols, x, x_stride, type,
                                                        stream);
    case cpu::Activation::kGeluTanh:
      return LaunchBiasActivate<cpu::Activation::kGeluTanh>(bias, rows, cols, x, x_stride, type,
                                                            stream);
    case cpu::Activation::kSilu:
      return LaunchBiasActivate<cpu::Activation::kSilu>(bias, rows, cols, x, x_stride, type,
                                                        stream);
    case cpu::Activation::kRelu:
      return LaunchBiasActivate<cpu::Activation::kRelu>(bias, rows, cols, x, x_stride, type,
                                                        stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace quiver
