#include "engine/model/weight_codes.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cpu/stored_type.h"

namespace quiver {
namespace {

constexpr std::array<float, 256> MakeFp8Values() {
  std::array<float, 256> values = {};
  for (int code = 0; code < 256; ++code) {
    const int exponent = (code >> 3) & 0xf;
    const int fraction = code & 7;
    // A float's bits for a normal number; below the least exponent, fractions of 2^-9.
    float value = exponent == 0
                      ? static_cast<float>(fraction) / 512.0f
                      : std::bit_cast<float>(static_cast<uint32_t>(exponent - 7 + 127) << 23 |
                                             static_cast<uint32_t>(fraction) << 20);
    if ((code & 0x7f) == 0x7f) value = std::numeric_limits<float>::quiet_NaN();
    values[static_cast<size_t>(code)] = code & 0x80 ? -value : value;
  }
  return values;
}
constexpr std::array<float, 256> kFp8Values = MakeFp8Values();
constexpr float kLargestFp8 = 448.0f;

}  // namespace

float Fp8ToFloat(uint8_t code) { return kFp8Values[code]; }

uint8_t FloatToFp8(float value) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  const float magnitude = std::min(std::abs(value), kLargestFp8);
  // In steps of the last place: 2^-9 below the least exponent, else 2^-3 of the power of two.
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  const int unit = std::max(exponent - 4, -9);
  const auto steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, -unit)));
  // 8 to 16 steps are a normal number; 16 are 8 of the next power.
  const int code = steps < 8 ? steps : (unit + 9) * 8 + steps;
  return static_cast<uint8_t>(sign | code);
}

float QuantizeToFp8(absl::Span<const float> values, uint8_t* codes) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  float scale = largest / kLargestFp8;
  if (!(scale > 0)) scale = 1.0f;
  for (size_t i = 0; i < values.size(); ++i) codes[i] = FloatToFp8(values[i] / scale);
  return scale;
}

float QuantizeToInt4(absl::Span<const float> values, uint8_t* codes, uint8_t* zero_point) {
  float least = 0;
  float largest = 0;
  for (const float value : values) {
    least = std::min(least, value);
    largest = std::max(largest, value);
  }
  constexpr float kLargestCode = 15.0f;
  float scale = cpu::Bfloat16ToFloat(cpu::FloatToBfloat16((largest - least) / kLargestCode));
  if (!(scale > 0)) scale = 1.0f;
  const float zero = std::clamp(std::nearbyint(-least / scale), 0.0f, kLargestCode);
  *zero_point = static_cast<uint8_t>(zero);
  for (size_t i = 0; i < values.size(); ++i) {
    codes[i] = static_cast<uint8_t>(
        std::clamp(std::nearbyint(values[i] / scale) + zero, 0.0f, kLargestCode));
  }
  return scale;
}

}  // namespace quiver
