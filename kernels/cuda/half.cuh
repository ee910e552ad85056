// Loads and stores of 16-bit and F32 elements, several at a time, as F32 in registers.
#ifndef QUIVER_KERNELS_CUDA_HALF_CUH_
#define QUIVER_KERNELS_CUDA_HALF_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cuda/half_type.h"

namespace quiver {

template <typename T>
using Pair = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;

template <typename T>
__device__ __forceinline__ float2 Widen(uint32_t bits) {
  if constexpr (std::is_same_v<T, __half>) {
    return __half22float2(*reinterpret_cast<const __half2*>(&bits));
  } else {
    return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
  }
}

// Rounds to nearest even.
template <typename T>
__device__ __forceinline__ uint32_t Narrow(float x, float y) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(x, y);
    return *reinterpret_cast<const uint32_t*>(&pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
}

// Four elements.
__device__ __forceinline__ float4 Load4(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}
template <typename T>
__device__ __forceinline__ float4 Load4(const T* from) {
  const uint2 bits = *reinterpret_cast<const uint2*>(from);
  const float2 low = Widen<T>(bits.x);
  const float2 high = Widen<T>(bits.y);
  return make_float4(low.x, low.y, high.x, high.y);
}

__device__ __forceinline__ void Store4(float* to, float4 value) {
  *reinterpret_cast<float4*>(to) = value;
}
template <typename T>
__device__ __forceinline__ void Store4(T* to, float4 value) {
  *reinterpret_cast<uint2*>(to) =
      make_uint2(Narrow<T>(value.x, value.y), Narrow<T>(value.z, value.w));
}

// Eight 16-bit elements.
template <typename T>
__device__ __forceinline__ void Load8(const T* from, float (&value)[8]) {
  const uint4 bits = *reinterpret_cast<const uint4*>(from);
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = Widen<T>(words[i]);
    value[2 * i] = pair.x;
    value[2 * i + 1] = pair.y;
  }
}

template <typename T>
__device__ __forceinline__ void Store8(T* to, const float (&value)[8]) {
  *reinterpret_cast<uint4*>(to) =
      make_uint4(Narrow<T>(value[0], value[1]), Narrow<T>(value[2], value[3]),
                 Narrow<T>(value[4], value[5]), Narrow<T>(value[6], value[7]));
}

// Calls visit(T()) with the type that `type` names.
template <typename Visit>
auto WithHalf(HalfType type, Visit&& visit) {
  if (type == HalfType::kF16) return std::forward<Visit>(visit)(__half());
  return std::forward<Visit>(visit)(__nv_bfloat16());
}

// Whether a row-major matrix may be read and written 16 bytes at a time, whatever its type.
inline bool IsVectorizable(const void* data, int64_t stride, int64_t cols) {
  return data != nullptr && reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 8 == 0 &&
         cols % 8 == 0 && stride >= cols && cols > 0;
}

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_HALF_CUH_
