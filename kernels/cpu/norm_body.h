// NormKernel for an instruction set. Sums are kept in sixteen lanes, lane i taking every sixteenth
// element from i on.
#ifndef QUIVER_KERNELS_CPU_NORM_BODY_H_
#define QUIVER_KERNELS_CPU_NORM_BODY_H_

#include <cstdint>

#include "kernels/cpu/norm_kernel.h"
#include "kernels/cpu/simd_math.h"

namespace quiver::cpu {

template <typename Set>
struct NormBody {
  using Vec = typename Set::Vec;

  // Calls visit(load, store, i) for each sixteen elements of a row from i on; load and store touch
  // but those that exist, what load leaves out being zero.
  template <typename Visit>
  static QUIVER_INLINE void ForVectors(int64_t dim, const Visit& visit) {
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) {
      visit([](const float* p) { return Vec::Load(p); }, [](Vec v, float* p) { v.Store(p); }, i);
    }
    if (i == dim) return;
    const int left = static_cast<int>(dim - i);
    visit([left](const float* p) { return Vec::LoadPartial(p, left); },
          [left](Vec v, float* p) { v.StorePartial(p, left); }, i);
  }

  // 1 / sqrt(mean + eps)
  static QUIVER_INLINE float Factor(Vec square_sum, int64_t dim, float eps) {
    return 1.0f / __builtin_sqrtf(SumOfLanes(square_sum) / static_cast<float>(dim) + eps);
  }

  static void Rms(const float* x, int64_t dim, const float* weight, float eps, float* y) {
    Vec square_sum = Vec::Set1(0.0f);
    ForVectors(dim, [&](auto load, auto, int64_t i) {
      const Vec value = load(x + i);
      square_sum = Vec::Fma(value, value, square_sum);
    });
    const Vec factor = Vec::Set1(Factor(square_sum, dim, eps));
    ForVectors(dim, [&](auto load, auto store, int64_t i) {
      store(load(x + i) * factor * load(weight + i), y + i);
    });
  }

  static void Layer(const float* x, int64_t dim, const float* weight, const float* bias, float eps,
                    float* y) {
    Vec sum = Vec::Set1(0.0f);
    ForVectors(dim, [&](auto load, auto, int64_t i) { sum = sum + load(x + i); });
    const float mean = SumOfLanes(sum) / static_cast<float>(dim);
    const Vec means = Vec::Set1(mean);
    Vec square_sum = Vec::Set1(0.0f);
    int64_t whole = dim / kLanes * kLanes;
    ForVectors(whole, [&](auto load, auto, int64_t i) {
      const Vec difference = load(x + i) - means;
      square_sum = Vec::Fma(difference, difference, square_sum);
    });
    if (whole < dim) {
      // The lanes past the end must add nothing, so they take the mean's place.
      float rest[kLanes];
      for (int i = 0; i < kLanes; ++i) rest[i] = whole + i < dim ? x[whole + i] : mean;
      const Vec difference = Vec::Load(rest) - means;
      square_sum = Vec::Fma(difference, difference, square_sum);
    }
    const Vec factor = Vec::Set1(Factor(square_sum, dim, eps));
    ForVectors(dim, [&](auto load, auto store, int64_t i) {
      store(Vec::Fma((load(x + i) - means) * factor, load(weight + i), load(bias + i)), y + i);
    });
  }

  static void Add(float* sum, const float* x, int64_t dim) {
    ForVectors(dim, [&](auto load, auto store, int64_t i) {
      store(load(sum + i) + load(x + i), sum + i);
    });
  }

  static void Rotate(float* x, int64_t half, const float* cos, const float* sin) {
    ForVectors(half, [&](auto load, auto store, int64_t i) {
      const Vec first = load(x + i);
      const Vec second = load(x + half + i);
      store(first * load(cos + i) - second * load(sin + i), x + i);
      store(second * load(cos + i) + first * load(sin + i), x + half + i);
    });
  }

  static constexpr NormKernel kKernel = {Rms, Layer, Add, Rotate};
};

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_NORM_BODY_H_
