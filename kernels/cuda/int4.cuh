// int4 operands in registers.
#ifndef QUIVER_KERNELS_CUDA_INT4_CUH_
#define QUIVER_KERNELS_CUDA_INT4_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/half.cuh"

namespace quiver::int4 {

// A power of two whose 16-bit pattern leaves the four lowest bits to a number from 0 to 15, so that
// the pattern with those bits set is the sum.
template <typename T>
inline constexpr uint32_t kBaseBits = std::is_same_v<T, __half> ? 0x6400 : 0x4300;
template <typename T>
inline constexpr float kBase = std::is_same_v<T, __half> ? 1024.0f : 128.0f;

// Scale and offset of one row, each twice.
template <typename T>
struct RowScale {
  __device__ __forceinline__ explicit RowScale(uint32_t word) {
    asm("prmt.b32 %0, %1, %1, 0x1010;" : "=r"(scale) : "r"(word));
    asm("prmt.b32 %0, %1, %1, 0x3232;" : "=r"(offset) : "r"(word));
  }
  uint32_t scale;
  uint32_t offset;
};

template <typename T>
__device__ __forceinline__ uint32_t Dequantize(uint32_t nibbles, const RowScale<T>& row) {
  uint32_t bits;
  // (nibbles & 0x000f000f) | base.
  asm("lop3.b32 %0, %1, %2, %3, 0xea;"
      : "=r"(bits)
      : "r"(nibbles), "n"(0x000f000f), "n"(kBaseBits<T> * 0x10001));
  const auto as_pair = [](uint32_t value) { return *reinterpret_cast<const Pair<T>*>(&value); };
  // Not contracted: the difference is exact, the product rounded once.
  const Pair<T> value = __hmul2(__hsub2(as_pair(bits), as_pair(row.offset)), as_pair(row.scale));
  return *reinterpret_cast<const uint32_t*>(&value);
}

// The left operand of 16 columns from a thread's word, rows `low` and eight below it `high`.
template <typename T>
__device__ __forceinline__ void Dequantize(uint32_t word, const RowScale<T>& low,
                                           const RowScale<T>& high, uint32_t (&out)[4]) {
  out[0] = Dequantize<T>(word, low);
  out[1] = Dequantize<T>(word >> 4, high);
  out[2] = Dequantize<T>(word >> 8, low);
  out[3] = Dequantize<T>(word >> 12, high);
}

}  // namespace quiver::int4

#endif  // QUIVER_KERNELS_CUDA_INT4_CUH_
