// Functions of sixteen floats, as templates over the instruction set's vector.
#ifndef QUIVER_KERNELS_CPU_SIMD_MATH_H_
#define QUIVER_KERNELS_CPU_SIMD_MATH_H_

#include "kernels/cpu/activation.h"
#include "kernels/cpu/simd.h"

namespace quiver::cpu {

// c[0] + c[1] x + c[2] x^2 + ...
template <typename Vec, int kCount>
QUIVER_INLINE Vec Polynomial(const float (&c)[kCount], Vec x) {
  Vec sum = Vec::Set1(c[kCount - 1]);
#pragma GCC unroll 16
  for (int i = kCount - 2; i >= 0; --i) sum = Vec::Fma(sum, x, Vec::Set1(c[i]));
  return sum;
}

// e^x within 2e-7 of its value. 0 below -87 (so of minus infinity too), e^88 above 88; NaN gives
// NaN.
template <typename Vec>
QUIVER_INLINE Vec Exp(Vec x) {
  // e^r = 1 + r + r^2 * the polynomial, minimax for |r| <= log(2) / 2.
  constexpr float kTail[] = {0.49999994f, 0.16666521f, 0.041668389f, 0.0083687352f, 0.0013814559f};
  // log(2) in two parts, the first so short that its multiples are exact.
  constexpr float kLog2High = 0.693359375f;
  constexpr float kLog2Low = -2.12194440e-4f;
  const Vec lowest = Vec::Set1(-87.0f);
  const Vec clamped = Vec::Min(Vec::Set1(88.0f), Vec::Max(lowest, x));
  const Vec shifted = Vec::Fma(clamped, Vec::Set1(1.44269504f), Vec::Set1(kRoundingShift));
  const Vec n = shifted - Vec::Set1(kRoundingShift);
  Vec r = Vec::Fma(n, Vec::Set1(-kLog2High), clamped);
  r = Vec::Fma(n, Vec::Set1(-kLog2Low), r);
  const Vec power = Vec::Fma(Polynomial(kTail, r), r * r, r) + Vec::Set1(1.0f);
  return Vec::ZeroIfLess(x, lowest, power * Vec::Pow2(shifted));
}

// x / (1 + e^-z)
template <typename Vec>
QUIVER_INLINE Vec TimesSigmoid(Vec x, Vec z) {
  return x / (Vec::Set1(1.0f) + Exp(Vec::Set1(0.0f) - z));
}

// x/2 + x/2 * erf(x / sqrt(2))
template <typename Vec>
QUIVER_INLINE Vec Gelu(Vec x) {
  // erf(x / sqrt(2)) = x P(x^2) / Q(x^2) within 1.2e-8 for |x| <= 5.4, beyond which it is 1 within
  // 7e-8; P and Q fitted by reweighted least squares.
  constexpr float kLimit = 5.4f;
  constexpr float kP[] = {0.79788446f,   0.066744514f,  0.0093017062f,
                          3.2864406e-4f, 1.2720052e-5f, 4.6773476e-8f};
  constexpr float kQ[] = {1.0f,          0.25031793f,  0.028378705f,
                          1.8589834e-3f, 7.240031e-5f, 1.2165915e-6f};
  const Vec inside = Vec::Min(Vec::Set1(kLimit), Vec::Max(Vec::Set1(-kLimit), x));
  const Vec square = inside * inside;
  const Vec erf = inside * Polynomial(kP, square) / Polynomial(kQ, square);
  const Vec half = x * Vec::Set1(0.5f);
  return Vec::Fma(half, erf, half);
}

template <Activation kActivation, typename Vec>
QUIVER_INLINE Vec Activated(Vec x) {
  if constexpr (kActivation == Activation::kGelu) return Gelu(x);
  if constexpr (kActivation == Activation::kSilu) return TimesSigmoid(x, x);
  if constexpr (kActivation == Activation::kGeluTanh) {
    // (1 + tanh(u)) / 2 = 1 / (1 + e^-2u)
    const Vec cubic = Vec::Fma(x * x, Vec::Set1(0.044715f), Vec::Set1(1.0f));
    return TimesSigmoid(x, Vec::Set1(2 * 0.7978845608f) * x * cubic);
  }
  if constexpr (kActivation == Activation::kRelu) return Vec::Max(Vec::Set1(0.0f), x);
  return x;
}

// Calls function<A>() for the A that `activation` is, so that loops inside need not ask.
template <typename Function>
QUIVER_INLINE void WithActivation(Activation activation, const Function& function) {
  switch (activation) {
    case Activation::kNone:
      return function.template operator()<Activation::kNone>();
    case Activation::kGelu:
      return function.template operator()<Activation::kGelu>();
    case Activation::kGeluTanh:
      return function.template operator()<Activation::kGeluTanh>();
    case Activation::kSilu:
      return function.template operator()<Activation::kSilu>();
    case Activation::kRelu:
      return function.template operator()<Activation::kRelu>();
  }
}

// The sum of x's lanes, in one order everywhere.
template <typename Vec>
QUIVER_INLINE float SumOfLanes(Vec x) {
  float lanes[kLanes];
  x.Store(lanes);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_SIMD_MATH_H_
