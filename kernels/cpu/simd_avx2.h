// The vector of AVX2 with FMA and F16C; for sources compiled for them.
#ifndef QUIVER_KERNELS_CPU_SIMD_AVX2_H_
#define QUIVER_KERNELS_CPU_SIMD_AVX2_H_

#include <immintrin.h>

#include "kernels/cpu/simd.h"

namespace quiver::cpu {

// Members as Float4's, but for an Fma that rounds once.
struct Float8 {
  static constexpr int kWidth = 8;
  __m256 v;

  QUIVER_INLINE static Float8 Set1(float x) { return {_mm256_set1_ps(x)}; }
  QUIVER_INLINE static Float8 Load(const float* p) { return {_mm256_loadu_ps(p)}; }
  QUIVER_INLINE static Float8 Load(const F16* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  QUIVER_INLINE static Float8 Load(const BF16* p) {
    const __m256i wide =
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
  }
  QUIVER_INLINE static Float8 LoadPartial(const float* p, int count) {
    return {_mm256_maskload_ps(p, Below(count))};
  }
  QUIVER_INLINE void Store(float* p) const { _mm256_storeu_ps(p, v); }
  QUIVER_INLINE void StorePartial(float* p, int count) const {
    _mm256_maskstore_ps(p, Below(count), v);
  }

  friend QUIVER_INLINE Float8 operator+(Float8 a, Float8 b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend QUIVER_INLINE Float8 operator-(Float8 a, Float8 b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend QUIVER_INLINE Float8 operator*(Float8 a, Float8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend QUIVER_INLINE Float8 operator/(Float8 a, Float8 b) { return {_mm256_div_ps(a.v, b.v)}; }

  QUIVER_INLINE static Float8 Fma(Float8 a, Float8 b, Float8 c) {
    return {_mm256_fmadd_ps(a.v, b.v, c.v)};
  }
  QUIVER_INLINE static Float8 Max(Float8 a, Float8 b) { return {_mm256_max_ps(a.v, b.v)}; }
  QUIVER_INLINE static Float8 Min(Float8 a, Float8 b) { return {_mm256_min_ps(a.v, b.v)}; }
  QUIVER_INLINE static Float8 ZeroIfLess(Float8 a, Float8 b, Float8 x) {
    return {_mm256_andnot_ps(_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ), x.v)};
  }
  QUIVER_INLINE static Float8 Pow2(Float8 shifted) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted.v), 23);
    return {_mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f800000)))};
  }

 private:
  // Lanes below `count`, which may be negative.
  QUIVER_INLINE static __m256i Below(int count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane);
  }
};

struct Avx2Set {
  using Vec = Twice<Float8>;
  static constexpr int kTileRows = 6;
  static constexpr int kTilePanels = 1;
};

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_SIMD_AVX2_H_
