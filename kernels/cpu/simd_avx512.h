// The vector of AVX-512 (F, BW, DQ, VL); for sources compiled for it.
#ifndef QUIVER_KERNELS_CPU_SIMD_AVX512_H_
#define QUIVER_KERNELS_CPU_SIMD_AVX512_H_

#include <immintrin.h>

#include "kernels/cpu/simd.h"

namespace quiver::cpu {

// Members as Float4's, but for an Fma that rounds once.
struct Float16 {
  static constexpr int kWidth = 16;
  __m512 v;

  QUIVER_INLINE static Float16 Set1(float x) { return {_mm512_set1_ps(x)}; }
  QUIVER_INLINE static Float16 Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  QUIVER_INLINE static Float16 Load(const F16* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  QUIVER_INLINE static Float16 Load(const BF16* p) {
    const __m512i wide =
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
  }
  QUIVER_INLINE static Float16 LoadPartial(const float* p, int count) {
    return {_mm512_maskz_loadu_ps(Below(count), p)};
  }
  QUIVER_INLINE void Store(float* p) const { _mm512_storeu_ps(p, v); }
  QUIVER_INLINE void StorePartial(float* p, int count) const {
    _mm512_mask_storeu_ps(p, Below(count), v);
  }

  friend QUIVER_INLINE Float16 operator+(Float16 a, Float16 b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend QUIVER_INLINE Float16 operator-(Float16 a, Float16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend QUIVER_INLINE Float16 operator*(Float16 a, Float16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend QUIVER_INLINE Float16 operator/(Float16 a, Float16 b) { return {_mm512_div_ps(a.v, b.v)}; }

  QUIVER_INLINE static Float16 Fma(Float16 a, Float16 b, Float16 c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
  }
  QUIVER_INLINE static Float16 Max(Float16 a, Float16 b) { return {_mm512_max_ps(a.v, b.v)}; }
  QUIVER_INLINE static Float16 Min(Float16 a, Float16 b) { return {_mm512_min_ps(a.v, b.v)}; }
  QUIVER_INLINE static Float16 ZeroIfLess(Float16 a, Float16 b, Float16 x) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_NLT_UQ), x.v)};
  }
  QUIVER_INLINE static Float16 Pow2(Float16 shifted) {
    const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted.v), 23);
    return {_mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(0x3f800000)))};
  }

 private:
  // Lanes below `count`, from 0 on.
  QUIVER_INLINE static __mmask16 Below(int count) {
    return count >= kWidth ? __mmask16{0xffff} : static_cast<__mmask16>((1u << count) - 1);
  }
};

struct Avx512Set {
  using Vec = Float16;
  static constexpr int kTileRows = 12;
  static constexpr int kTilePanels = 2;
};

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_SIMD_AVX512_H_
