// E4M3 by its definition.
#ifndef QUIVER_TESTS_KERNELS_CUDA_FP8_VALUE_H_
#define QUIVER_TESTS_KERNELS_CUDA_FP8_VALUE_H_

#include <cmath>
#include <cstdint>
#include <limits>

namespace quiver {

// A sign, 4 bits of exponent biased by 7, 3 of fraction.
inline float Fp8Value(uint8_t code) {
  const int exponent = code >> 3 & 15;
  const float fraction = static_cast<float>(code & 7) / 8;
  const float magnitude = exponent == 0           ? std::ldexp(fraction, -6)
                          : (code & 0x7f) == 0x7f ? std::numeric_limits<float>::quiet_NaN()
                                                  : std::ldexp(1 + fraction, exponent - 7);
  return code < 128 ? magnitude : -magnitude;
}

}  // namespace quiver

#endif  // QUIVER_TESTS_KERNELS_CUDA_FP8_VALUE_H_
