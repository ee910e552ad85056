// Work mapping: head_dim / 16 lanes take one head, each lane eight neighbouring elements of its
// first half and the eight that rotate with them; a block takes one row, so that the row's cosines
// and sines are loaded once for the heads a thread takes.
//
// Bound: bytes, 4 for each element of a query or key head.
#include <algorithm>
#include <climits>
#include <cmath>
#include <cstdint>

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rope.h"

namespace quiver {
namespace {

constexpr int kMaxHalf = 128;
constexpr int kHeadsPerThread = 2;  // loaded before the first of them is worked on
constexpr int kMaxThreads = 512;    // a block's, so that two heads fit a thread's registers

struct InverseFrequencies {
  float value[kMaxHalf];
};

__global__ void RopeTableKernel(InverseFrequencies frequencies, int half, int64_t max_positions,
                                float* table) {
  const int64_t position = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  WaitForEarlierKernels();
  if (position >= max_positions) return;
  float* row = table + 2 * position * half;
  for (int i = threadIdx.x; i < half; i += blockDim.x) {
    const float angle = static_cast<float>(position) * frequencies.value[i];
    double sine;
    double cosine;
    sincos(static_cast<double>(angle), &sine, &cosine);
    row[i] = static_cast<float>(cosine);
    row[half + i] = static_cast<float>(sine);
  }
}

__device__ __forceinline__ void LoadFloats(const float* from, float (&value)[8]) {
  const float4 low = Load4(from);
  const float4 high = Load4(from + 4);
  value[0] = low.x;
  value[1] = low.y;
  value[2] = low.z;
  value[3] = low.w;
  value[4] = high.x;
  value[5] = high.y;
  value[6] = high.z;
  value[7] = high.w;
}

// `first` and `second`: a lane's elements of the two halves of a head, normed in place.
template <int kLanes>
__device__ __forceinline__ void NormHead(float (&first)[8], float (&second)[8], const float* weight,
                                         float eps, int lane) {
  constexpr int kHalf = 8 * kLanes;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(first[i], first[i], sum);
#pragma unroll
  for (int i = 0; i < 8; ++i) sum = fmaf(second[i], second[i], sum);
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(~0u, sum, offset);
  }
  const float factor = 1.0f / sqrtf(sum / (2 * kHalf) + eps);
  float weights[8];
  LoadFloats(weight + 8 * lane, weights);
#pragma unroll
  for (int i = 0; i < 8; ++i) first[i] = first[i] * factor * weights[i];
  LoadFloats(weight + kHalf + 8 * lane, weights);
#pragma unroll
  for (int i = 0; i < 8; ++i) second[i] = second[i] * factor * weights[i];
}

struct RopeParams {
  int num_heads;
  int total_heads;
  int64_t stride;
  const float* q_weight;
  const float* k_weight;
  float eps;
  const int32_t* positions;
  const float* table;
};

template <typename T, int kLanes>
__global__ void __launch_bounds__(kMaxThreads) QkNormRopeKernel(RopeParams params, T* qkv) {
  constexpr int kHalf = 8 * kLanes;
  const int64_t row = blockIdx.x;
  const int lane = threadIdx.x % kLanes;
  const int groups = blockDim.x / kLanes;
  WaitForEarlierKernels();
  const float* angles = params.table + static_cast<int64_t>(params.positions[row]) * 2 * kHalf;
  float cosine[8];
  float sine[8];
  LoadFloats(angles + 8 * lane, cosine);
  LoadFloats(angles + kHalf + 8 * lane, sine);
  T* at = qkv + row * params.stride + 8 * lane;

  // Whole warps go round together, so that all lanes take part in the shuffles.
  for (int base = 0; base < params.total_heads; base += groups * kHeadsPerThread) {
    float first[kHeadsPerThread][8] = {};
    float second[kHeadsPerThread][8] = {};
#pragma unroll
    for (int j = 0; j < kHeadsPerThread; ++j) {
      const int head = base + j * groups + static_cast<int>(threadIdx.x) / kLanes;
      if (head >= params.total_heads) continue;
      Load8(at + head * 2 * kHalf, first[j]);
      Load8(at + head * 2 * kHalf + kHalf, second[j]);
    }
#pragma unroll
    for (int j = 0; j < kHeadsPerThread; ++j) {
      const int head = base + j * groups + static_cast<int>(threadIdx.x) / kLanes;
      // The same for all heads: either both weights are there or neither.
      if (params.q_weight != nullptr || params.k_weight != nullptr) {
        NormHead<kLanes>(first[j], second[j],
                         head < params.num_heads ? params.q_weight : params.k_weight, params.eps,
                         lane);
      }
      if (head >= params.total_heads) continue;
      float low[8];
      float high[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        low[i] = first[j][i] * cosine[i] - second[j][i] * sine[i];
        high[i] = second[j][i] * cosine[i] + first[j][i] * sine[i];
      }
      Store8(at + head * 2 * kHalf, low);
      Store8(at + head * 2 * kHalf + kHalf, high);
    }
  }
}

}  // namespace

cudaError_t MakeRopeTable(float* table, int64_t max_positions, int head_dim, double theta,
                          cudaStream_t stream) {
  const int half = head_dim / 2;
  if (table == nullptr || head_dim <= 0 || head_dim % 2 != 0 || half > kMaxHalf ||
      max_positions > INT_MAX) {
    return cudaErrorInvalidValue;
  }
  if (max_positions <= 0) return cudaSuccess;
  InverseFrequencies frequencies = {};
  for (int i = 0; i < half; ++i) {
    const double exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    frequencies.value[i] = 1.0f / static_cast<float>(std::pow(theta, exponent));
  }
  const dim3 threads(32, 4);
  const auto blocks = static_cast<unsigned>((max_positions + threads.y - 1) / threads.y);
  RopeTableKernel<<<blocks, threads, 0, stream>>>(frequencies, half, max_positions, table);
  return cudaGetLastError();
}

cudaError_t QkNormRope(const QkNormRopeShape& shape, void* qkv, int64_t stride,
                       const float* q_weight, const float* k_weight, float eps,
                       const int32_t* positions, const float* table, cudaStream_t stream) {
  const int total_heads = shape.num_heads + shape.num_kv_heads;
  if ((shape.head_dim != 64 && shape.head_dim != 128) || shape.num_heads < 0 ||
      shape.num_kv_heads < 0 || shape.rows > INT_MAX || positions == nullptr || table == nullptr ||
      !IsVectorizable(qkv, stride, static_cast<int64_t>(total_heads) * shape.head_dim)) {
    return cudaErrorInvalidValue;
  }
  const bool has_q = q_weight != nullptr || shape.num_heads == 0;
  const bool has_k = k_weight != nullptr || shape.num_kv_heads == 0;
  if ((q_weight != nullptr || k_weight != nullptr) && !(has_q && has_k)) {
    return cudaErrorInvalidValue;
  }
  if (shape.rows <= 0) return cudaSuccess;
  // Lanes past the last head norm what is not there with the key's weight.
  RopeParams params = {shape.num_heads, total_heads, stride,    q_weight,
                       k_weight,        eps,         positions, table};
  if (shape.num_kv_heads == 0) params.k_weight = q_weight;
  const int lanes = shape.head_dim / 16;
  const int groups = (total_heads + kHeadsPerThread - 1) / kHeadsPerThread;
  const int threads = std::min(kMaxThreads, (groups * lanes + 31) / 32 * 32);
  return WithHalf(shape.type, [&](auto element) {
    using T = decltype(element);
    const auto kernel = shape.head_dim == 128 ? QkNormRopeKernel<T, 8> : QkNormRopeKernel<T, 4>;
    return Launch(kernel, static_cast<unsigned>(shape.rows), static_cast<unsigned>(threads), 0,
                  stream, params, static_cast<T*>(qkv));
  });
}

}  // namespace quiver
