// Work mapping: a row stays in the registers of one warp (up to 1024 elements) or one block, so
// that the residual is read and written once; lanes take four neighbouring elements at a time. The
// mapping depends on `dim` alone, and with it the order of summation: in a thread, then between
// the lanes of a warp, then over the warps.
//
// Bound: bytes. 12 a row's element with a delta (residual in and out, delta in, out), against the
// device's copy.
#include <climits>
#include <cstdint>

#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/norm.h"

namespace quiver {
namespace {

constexpr int kMaxDim = 16384;
constexpr int kWarpMaxDim = 1024;
constexpr int kRowsPerBlock = 4;  // where a warp has a row
constexpr int kMaxWarps = 32;

struct NormParams {
  NormTensors tensors;
  const float* weight;
  const float* bias;
  float eps;
};

// Sum over the threads that share a row, the same for all of them. `partial` holds kMaxWarps.
template <bool kWarpHasRow>
__device__ __forceinline__ float RowSum(float value, float* partial) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
  if constexpr (kWarpHasRow) return value;
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (unsigned i = 0; i < blockDim.x / 32; ++i) sum += partial[i];
  return sum;
}

__device__ __forceinline__ float4 Add(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

__device__ __forceinline__ float SquareSum(float4 a, float sum) {
  return fmaf(a.w, a.w, fmaf(a.z, a.z, fmaf(a.y, a.y, fmaf(a.x, a.x, sum))));
}

// A thread holds up to kQuads groups of four elements of its row.
template <typename T, int kQuads, bool kWarpHasRow, bool kIsLayerNorm>
__global__ void NormKernel(NormParams params) {
  // An array each, so that none need wait for the readers of the one before.
  __shared__ float partial[3][kMaxWarps];
  const NormTensors& t = params.tensors;
  const int lane = kWarpHasRow ? threadIdx.x % 32 : threadIdx.x;
  const int lanes = kWarpHasRow ? 32 : blockDim.x;
  const int64_t row = kWarpHasRow
                          ? static_cast<int64_t>(blockIdx.x) * kRowsPerBlock + threadIdx.x / 32
                          : static_cast<int64_t>(blockIdx.x);
  const int dim = static_cast<int>(t.dim);
  WaitForEarlierKernels();
  if (row >= t.rows) return;

  const int64_t source_row = t.residual_rows != nullptr ? t.residual_rows[row] : row;
  const float* residual = t.residual + source_row * t.residual_stride;
  const T* delta = static_cast<const T*>(t.delta) + row * t.delta_stride;
  float4 value[kQuads];
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int column = 4 * (lane + i * lanes);
    value[i] = make_float4(0, 0, 0, 0);
    if (column < dim) value[i] = Load4(residual + column);
  }
  if (t.delta != nullptr) {
    float4 more[kQuads];
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int column = 4 * (lane + i * lanes);
      more[i] = make_float4(0, 0, 0, 0);
      if (column < dim) more[i] = Load4(delta + column);
    }
#pragma unroll
    for (int i = 0; i < kQuads; ++i) value[i] = Add(value[i], more[i]);
  }
  if (t.delta_bias != nullptr) {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int column = 4 * (lane + i * lanes);
      if (column < dim) value[i] = Add(value[i], Load4(t.delta_bias + column));
    }
  }

  float* residual_out =
      t.residual_out == nullptr ? nullptr : t.residual_out + row * t.residual_out_stride;
  T* out = t.out == nullptr ? nullptr : static_cast<T*>(t.out) + row * t.out_stride;
  float mean = 0;
  if constexpr (kIsLayerNorm) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      sum += (value[i].x + value[i].y) + (value[i].z + value[i].w);
    }
    mean = RowSum<kWarpHasRow>(sum, partial[0]) / static_cast<float>(dim);
  }
  float square_sum = 0;
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int column = 4 * (lane + i * lanes);
    if (column >= dim) continue;
    if constexpr (kIsLayerNorm) {
      value[i] = Add(value[i], make_float4(-mean, -mean, -mean, -mean));
    } else if (residual_out != nullptr) {
      Store4(residual_out + column, value[i]);
    }
    square_sum = SquareSum(value[i], square_sum);
  }
  const float factor =
      1.0f /
      sqrtf(RowSum<kWarpHasRow>(square_sum, partial[1]) / static_cast<float>(dim) + params.eps);
  float most = 0;
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int column = 4 * (lane + i * lanes);
    if (column >= dim) continue;
    const float4 weight = Load4(params.weight + column);
    float4 result = make_float4(value[i].x * factor * weight.x, value[i].y * factor * weight.y,
                                value[i].z * factor * weight.z, value[i].w * factor * weight.w);
    if constexpr (kIsLayerNorm) {
      result = Add(result, Load4(params.bias + column));
      if (residual_out != nullptr) Store4(residual_out + column, result);
    }
    if (out != nullptr) Store4(out + column, result);
    if constexpr (!kIsLayerNorm) {
      most = fp8::LargerMagnitude(fp8::LargerMagnitude(most, result.x), result.y);
      most = fp8::LargerMagnitude(fp8::LargerMagnitude(most, result.z), result.w);
      value[i] = result;
    }
  }
  if constexpr (!kIsLayerNorm) {
    if (t.fp8.codes == nullptr) return;
    const fp8::Scale scale(kWarpHasRow ? fp8::WarpMax(most) : fp8::BlockMax(most, partial[2]));
    auto* codes = static_cast<unsigned char*>(t.fp8.codes) + row * t.fp8.stride;
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const int column = 4 * (lane + i * lanes);
      if (column >= dim) continue;
      const float f = scale.inverse;
      *reinterpret_cast<uint32_t*>(codes + column) =
          fp8::Codes4(value[i].x * f, value[i].y * f, value[i].z * f, value[i].w * f);
    }
    if (lane == 0) t.fp8.scales[row] = scale.value;
  }
}

bool IsValid(const NormParams& params, bool is_layer_norm) {
  const NormTensors& t = params.tensors;
  const auto is_vector = [&](const float* data) { return IsVectorizable(data, t.dim, t.dim); };
  return t.dim <= kMaxDim && t.rows <= INT_MAX &&
         IsVectorizable(t.residual, t.residual_stride, t.dim) &&
         (t.delta == nullptr || IsVectorizable(t.delta, t.delta_stride, t.dim)) &&
         (t.delta_bias == nullptr || is_vector(t.delta_bias)) &&
         (t.residual_out == nullptr ||
          IsVectorizable(t.residual_out, t.residual_out_stride, t.dim)) &&
         (t.out == nullptr || IsVectorizable(t.out, t.out_stride, t.dim)) &&
         (t.fp8.codes == nullptr ||
          (!is_layer_norm && IsVectorizable(t.fp8.codes, t.fp8.stride, t.dim) &&
           t.fp8.scales != nullptr)) &&
         is_vector(params.weight) && (!is_layer_norm || is_vector(params.bias));
}

template <typename T, bool kIsLayerNorm>
cudaError_t LaunchNorm(const NormParams& params, cudaStream_t stream) {
  const unsigned rows = static_cast<unsigned>(params.tensors.rows);
  const int dim = static_cast<int>(params.tensors.dim);
  if (dim <= kWarpMaxDim) {
    const unsigned blocks = (rows + kRowsPerBlock - 1) / kRowsPerBlock;
    const auto kernel = dim <= 256   ? NormKernel<T, 2, true, kIsLayerNorm>
                        : dim <= 512 ? NormKernel<T, 4, true, kIsLayerNorm>
                                     : NormKernel<T, 8, true, kIsLayerNorm>;
    return Launch(kernel, blocks, 32 * kRowsPerBlock, 0, stream, params);
  }
  constexpr int kQuads = 4;
  const int threads = (dim + 32 * 4 * kQuads - 1) / (32 * 4 * kQuads) * 32;
  return Launch(NormKernel<T, kQuads, false, kIsLayerNorm>, rows, static_cast<unsigned>(threads), 0,
                stream, params);
}

template <bool kIsLayerNorm>
cudaError_t Norm(const NormParams& params, cudaStream_t stream) {
  if (!IsValid(params, kIsLayerNorm)) return cudaErrorInvalidValue;
  if (params.tensors.rows <= 0) return cudaSuccess;
  return WithHalf(params.tensors.type, [&](auto element) {
    return LaunchNorm<decltype(element), kIsLayerNorm>(params, stream);
  });
}

}  // namespace

cudaError_t AddRmsNorm(const NormTensors& tensors, const float* weight, float eps,
                       cudaStream_t stream) {
  return Norm<false>({tensors, weight, nullptr, eps}, stream);
}

cudaError_t AddLayerNorm(const NormTensors& tensors, const float* weight, const float* bias,
                         float eps, cudaStream_t stream) {
  return Norm<true>({tensors, weight, bias, eps}, stream);
}

}  // namespace quiver
