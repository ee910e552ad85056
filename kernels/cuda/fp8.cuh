// FP8 (E4M3) operands in registers.
#ifndef QUIVER_KERNELS_CUDA_FP8_CUH_
#define QUIVER_KERNELS_CUDA_FP8_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

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

}  // namespace quiver::fp8

#endif  // QUIVER_KERNELS_CUDA_FP8_CUH_
