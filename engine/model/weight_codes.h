// The codes that weights are quantized to, and the nearest ones to a float.
#ifndef QUIVER_ENGINE_MODEL_WEIGHT_CODES_H_
#define QUIVER_ENGINE_MODEL_WEIGHT_CODES_H_

#include <cstdint>

#include "absl/types/span.h"

namespace quiver {

// The value of an E4M3 code: a sign, 4 bits of exponent biased by 7, 3 of fraction; no infinity,
// and 0x7f and 0xff are NaN.
float Fp8ToFloat(uint8_t code);
// The nearest E4M3 code, ties to even; beyond 448 the largest. `value` must not be NaN.
uint8_t FloatToFp8(float value);

// One scale for finite `values`, whose largest gets the largest E4M3 code, and their nearest
// `codes`, as many. Returns the scale: a value is about FP8(code) * scale.
float QuantizeToFp8(absl::Span<const float> values, uint8_t* codes);

// A scale, which is a BF16, and a zero point for finite `values`, so that the least and the largest
// of them and 0 have codes from 0 to 15, and their nearest `codes`, as many. Returns the scale: a
// value is about (code - zero point) * scale.
float QuantizeToInt4(absl::Span<const float> values, uint8_t* codes, uint8_t* zero_point);

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_WEIGHT_CODES_H_
