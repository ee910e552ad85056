// Sixteen floats at a time, whatever the instruction set: the vector type that kernel bodies are
// templates over. Private to kernels/cpu.
//
// An instruction set gives a vector of its own width (Float4 here, Float8 in simd_avx2.h, Float16
// in simd_avx512.h); narrower ones are joined by Twice. So a body has the same order of operations
// everywhere, and instruction sets differ in results only where Fma does.
//
// Sources that are compiled for an instruction set hold such bodies and a table of pointers to
// them, nothing else: code that other sources may share (inline functions, standard templates) must
// not be emitted there, since the linker could keep that copy for all.
#ifndef QUIVER_KERNELS_CPU_SIMD_H_
#define QUIVER_KERNELS_CPU_SIMD_H_

#include <cstdint>

#include "kernels/cpu/stored_type.h"

// Vectors stay in registers only if everything between their loads and stores is inlined.
#define QUIVER_INLINE inline __attribute__((always_inline))

namespace quiver::cpu {

// Elements of weights stored in 16 bits.
struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};

// Added to a float of magnitude below 2^22, rounds it to an integer (to nearest even), which then
// stands in the sum's lowest bits.
inline constexpr float kRoundingShift = 0x1.8p23f;

// Plain C++, for processors without a set of their own. Fma rounds the product.
struct Float4 {
  static constexpr int kWidth = 4;
  typedef float Lanes __attribute__((vector_size(16)));
  typedef int32_t Bits __attribute__((vector_size(16)));
  Lanes v;

  QUIVER_INLINE static Float4 Set1(float x) { return {Lanes{x, x, x, x}}; }
  QUIVER_INLINE static Float4 Load(const float* p) { return {Lanes{p[0], p[1], p[2], p[3]}}; }
  QUIVER_INLINE static Float4 Load(const F16* p) {
    return {Lanes{HalfToFloat(p[0].bits), HalfToFloat(p[1].bits), HalfToFloat(p[2].bits),
                  HalfToFloat(p[3].bits)}};
  }
  QUIVER_INLINE static Float4 Load(const BF16* p) {
    const Bits bits = {p[0].bits, p[1].bits, p[2].bits, p[3].bits};
    return {reinterpret_cast<Lanes>(bits << 16)};
  }
  QUIVER_INLINE static Float4 LoadPartial(const float* p, int count) {
    Float4 x = Set1(0.0f);
    for (int i = 0; i < count && i < kWidth; ++i) x.v[i] = p[i];
    return x;
  }
  QUIVER_INLINE void Store(float* p) const {
    for (int i = 0; i < kWidth; ++i) p[i] = v[i];
  }
  QUIVER_INLINE void StorePartial(float* p, int count) const {
    for (int i = 0; i < count && i < kWidth; ++i) p[i] = v[i];
  }

  friend QUIVER_INLINE Float4 operator+(Float4 a, Float4 b) { return {a.v + b.v}; }
  friend QUIVER_INLINE Float4 operator-(Float4 a, Float4 b) { return {a.v - b.v}; }
  friend QUIVER_INLINE Float4 operator*(Float4 a, Float4 b) { return {a.v * b.v}; }
  friend QUIVER_INLINE Float4 operator/(Float4 a, Float4 b) { return {a.v / b.v}; }

  // a * b + c
  QUIVER_INLINE static Float4 Fma(Float4 a, Float4 b, Float4 c) { return {a.v * b.v + c.v}; }
  // a > b ? a : b, and a < b ? a : b; so b if either is NaN.
  QUIVER_INLINE static Float4 Max(Float4 a, Float4 b) { return {a.v > b.v ? a.v : b.v}; }
  QUIVER_INLINE static Float4 Min(Float4 a, Float4 b) { return {a.v < b.v ? a.v : b.v}; }
  // x where a < b is false, else 0.
  QUIVER_INLINE static Float4 ZeroIfLess(Float4 a, Float4 b, Float4 x) {
    return {a.v < b.v ? Lanes{} : x.v};
  }
  // 2^n of n + kRoundingShift, n from -126 to 127.
  QUIVER_INLINE static Float4 Pow2(Float4 shifted) {
    const Bits bits = (reinterpret_cast<Bits>(shifted.v) << 23) + 0x3f800000;
    return {reinterpret_cast<Lanes>(bits)};
  }
};

// Two vectors as one.
template <typename Half>
struct Twice {
  static constexpr int kWidth = 2 * Half::kWidth;
  Half lo;
  Half hi;

  QUIVER_INLINE static Twice Set1(float x) { return {Half::Set1(x), Half::Set1(x)}; }
  template <typename T>
  QUIVER_INLINE static Twice Load(const T* p) {
    return {Half::Load(p), Half::Load(p + Half::kWidth)};
  }
  // The first `count` elements, then zeros; touches no more memory than that.
  QUIVER_INLINE static Twice LoadPartial(const float* p, int count) {
    return {Half::LoadPartial(p, count), Half::LoadPartial(p + Half::kWidth, count - Half::kWidth)};
  }
  QUIVER_INLINE void Store(float* p) const {
    lo.Store(p);
    hi.Store(p + Half::kWidth);
  }
  QUIVER_INLINE void StorePartial(float* p, int count) const {
    lo.StorePartial(p, count);
    hi.StorePartial(p + Half::kWidth, count - Half::kWidth);
  }

  friend QUIVER_INLINE Twice operator+(Twice a, Twice b) { return {a.lo + b.lo, a.hi + b.hi}; }
  friend QUIVER_INLINE Twice operator-(Twice a, Twice b) { return {a.lo - b.lo, a.hi - b.hi}; }
  friend QUIVER_INLINE Twice operator*(Twice a, Twice b) { return {a.lo * b.lo, a.hi * b.hi}; }
  friend QUIVER_INLINE Twice operator/(Twice a, Twice b) { return {a.lo / b.lo, a.hi / b.hi}; }

  QUIVER_INLINE static Twice Fma(Twice a, Twice b, Twice c) {
    return {Half::Fma(a.lo, b.lo, c.lo), Half::Fma(a.hi, b.hi, c.hi)};
  }
  QUIVER_INLINE static Twice Max(Twice a, Twice b) {
    return {Half::Max(a.lo, b.lo), Half::Max(a.hi, b.hi)};
  }
  QUIVER_INLINE static Twice Min(Twice a, Twice b) {
    return {Half::Min(a.lo, b.lo), Half::Min(a.hi, b.hi)};
  }
  QUIVER_INLINE static Twice ZeroIfLess(Twice a, Twice b, Twice x) {
    return {Half::ZeroIfLess(a.lo, b.lo, x.lo), Half::ZeroIfLess(a.hi, b.hi, x.hi)};
  }
  QUIVER_INLINE static Twice Pow2(Twice shifted) {
    return {Half::Pow2(shifted.lo), Half::Pow2(shifted.hi)};
  }
};

// Floats of every instruction set's vector.
inline constexpr int kLanes = 16;

// Instruction sets, as bodies take them. kTileRows x kTilePanels vectors of sums, one of weights a
// panel and one of x fill the registers.
struct GenericSet {
  using Vec = Twice<Twice<Float4>>;
  static constexpr int kTileRows = 2;
  static constexpr int kTilePanels = 1;
};

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_SIMD_H_
