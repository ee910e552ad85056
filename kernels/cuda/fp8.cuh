// FP8 (E4M3) operands in registers.
#ifndef QUIVER_KERNELS_CUDA_FP8_CUH_
#define QUIVER_KERNELS_CUDA_FP8_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>
#include <type_traits>

namespace quiver::fp8 {

// Two codes, in the lower half of `codes`, as two numbers of T. Exact, subnormal ones included; for
// BF16 what E4M3 has as NaN becomes 480.
template <typename T>
__device__ __forceinline__ uint32_t Widen(uint32_t codes) {
  if constexpr (std::is_same_v<T, __half>) {
    uint32_t pair;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"(static_cast<uint16_t>(codes)));
    return pair;
  } else {
    // The bits of a code, with its exponent as the lowest of a wider one's: 2^-120 of its value.
    const uint32_t bytes = __byte_perm(codes, 0, 0x1404);
    const uint32_t bits = (bytes >> 4 & 0x07f007f0) | (bytes & 0x80008000);
    constexpr uint32_t kTwoToThe120 = 0x7b80;
    const uint32_t factor = kTwoToThe120 * 0x10001;
    const __nv_bfloat162 value = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&bits),
                                         *reinterpret_cast<const __nv_bfloat162*>(&factor));
    return *reinterpret_cast<const uint32_t*>(&value);
  }
}

// Of a row-major tile of codes in shared memory, a thread's part of the left operand of mma
// m16n8k16 and wgmma m64k16: two codes from 2 (lane % 4) on and two from eight further, of row lane
// / 4 at `low` and of the eighth below it at `high`.
template <typename T>
__device__ __forceinline__ void LeftOperand(const unsigned char* low, const unsigned char* high,
                                            uint32_t (&out)[4]) {
  const auto pair = [](const unsigned char* from) {
    return static_cast<uint32_t>(*reinterpret_cast<const uint16_t*>(from));
  };
  out[0] = Widen<T>(pair(low));
  out[1] = Widen<T>(pair(high));
  out[2] = Widen<T>(pair(low + 8));
  out[3] = Widen<T>(pair(high + 8));
}

constexpr float kLargest = 448;

// The larger of two magnitudes; NaN if one is. They are in the order of their bits, NaN above all.
__device__ __forceinline__ float LargerMagnitude(float a, float b) {
  return __uint_as_float(max(__float_as_uint(a) & 0x7fffffff, __float_as_uint(b) & 0x7fffffff));
}

__device__ __forceinline__ float WarpMax(float magnitude) {
  return __uint_as_float(__reduce_max_sync(0xffffffff, __float_as_uint(magnitude)));
}

// Over the threads of a block. `partial` has room for a float a warp, and is not read by a call
// before.
__device__ __forceinline__ float BlockMax(float magnitude, float* partial) {
  const float warp = WarpMax(magnitude);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = warp;
  __syncthreads();
  float most = 0;
  for (unsigned i = 0; i < blockDim.x / 32; ++i) most = LargerMagnitude(most, partial[i]);
  return most;
}

// Of a row, from its largest magnitude: for infinity or NaN a scale that spoils it.
struct Scale {
  __device__ __forceinline__ explicit Scale(float most) {
    // So that the inverse is finite. NaN stays.
    constexpr float kLeast = 1e-30f;
    if (most < kLeast) most = kLeast;
    value = most / kLargest;
    inverse = kLargest / most;
  }
  float value;
  float inverse;
};

__device__ __forceinline__ uint32_t Code(float value) {
  return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
}

// The first in the lowest byte.
__device__ __forceinline__ uint32_t Codes2(float a, float b) {
  return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
}
__device__ __forceinline__ uint32_t Codes4(float a, float b, float c, float d) {
  return Codes2(a, b) | Codes2(c, d) << 16;
}

// Eight neighbouring elements.
__device__ __forceinline__ void Store8(unsigned char* to, const float (&value)[8], float inverse) {
  float x[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = value[i] * inverse;
  *reinterpret_cast<uint2*>(to) =
      make_uint2(Codes4(x[0], x[1], x[2], x[3]), Codes4(x[4], x[5], x[6], x[7]));
}

}  // namespace quiver::fp8

#endif  // QUIVER_KERNELS_CUDA_FP8_CUH_
