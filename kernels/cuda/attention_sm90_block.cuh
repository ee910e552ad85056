// What a computing warpgroup of Hopper's attention kernel does to one block of keys: products,
// mask, softmax. For attention_sm90_compute.cuh.
#ifndef QUIVER_KERNELS_CUDA_ATTENTION_SM90_BLOCK_CUH_
#define QUIVER_KERNELS_CUDA_ATTENTION_SM90_BLOCK_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/attention_sm90.cuh"
#include "kernels/cuda/hopper.cuh"

namespace quiver::sm90 {

using namespace hopper;

template <typename T>
__device__ __forceinline__ uint32_t Pack(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Scores of 64 rows against one K block, issued, not waited for.
template <typename T>
__device__ __forceinline__ void IssueScores(float (&s)[64], uint64_t q, uint64_t k) {
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    // 16 columns are 32 bytes of a row; after 64 comes the other half tile.
    const uint64_t offset = (step / 4 * kHalfTileBytes + step % 4 * 32) >> 4;
    MmaShared<T>(s, q + offset, k + offset, step > 0);
  }
  MmaCommit();
}

template <typename T>
__device__ __forceinline__ void IssueValues(float (&acc)[64], const uint32_t (&p)[8][4],
                                            uint64_t v) {
#pragma unroll
  for (int step = 0; step < kBlockKeys / 16; ++step) {
    MmaRegisters<T>(acc, p[step], v + (step * 16 * 128 >> 4));
  }
  MmaCommit();
}

// Scores of keys from `limit` on, counted from the block's first, are taken out; `limit` is that of
// the thread's first row, and grows by `limit_step` to its second, eight rows below.
__device__ __forceinline__ void Mask(float (&s)[64], int limit, int limit_step) {
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int j = 0; j < 16; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (j * 8 + column + e % 2 >= limit + e / 2 * limit_step) s[j * 4 + e] = -INFINITY;
    }
  }
}

struct RowState {
  float max[2];
  float sum[2];  // of this thread's columns
};

// Turns scores into weights, updates the rows' state and gives the factor for what was summed under
// the old maximum.
__device__ __forceinline__ void Softmax(float (&s)[64], float scale_log2, RowState& rows,
                                        float (&rescale)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float top = rows.max[half];
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      top = fmaxf(top, fmaxf(s[j * 4 + half * 2], s[j * 4 + half * 2 + 1]));
    }
    top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 2));
    const float shift = top * scale_log2;
    rescale[half] = Exp2(fmaf(rows.max[half], scale_log2, -shift));
    rows.max[half] = top;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
      for (int e = half * 2; e < half * 2 + 2; ++e) {
        s[j * 4 + e] = Exp2(fmaf(s[j * 4 + e], scale_log2, -shift));
        sum += s[j * 4 + e];
      }
    }
    rows.sum[half] = fmaf(rows.sum[half], rescale[half], sum);
  }
}

template <typename T>
__device__ __forceinline__ void PackWeights(const float (&s)[64], uint32_t (&p)[8][4]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) p[i / 4][i % 4] = Pack<T>(s[i * 2], s[i * 2 + 1]);
}

__device__ __forceinline__ void Rescale(float (&acc)[64], const float (&rescale)[2]) {
#pragma unroll
  for (int i = 0; i < 64; ++i) acc[i] *= rescale[i / 2 % 2];
}

}  // namespace quiver::sm90

#endif  // QUIVER_KERNELS_CUDA_ATTENTION_SM90_BLOCK_CUH_
