#include <cstring>
#include <string>
#include <vector>

#include "quiver/client_types.h"

namespace quiver::client {
namespace {

uint32_t Bits16(const std::string& data, size_t i) {
  return static_cast<unsigned char>(data[2 * i]) |
         static_cast<uint32_t>(static_cast<unsigned char>(data[2 * i + 1])) << 8;
}

float FromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// IEEE 754 binary16.
float FromHalf(uint32_t half) {
  const uint32_t sign = (half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 0x1F;
  const uint32_t fraction = half & 0x3FF;
  if (exponent == 0) {
    // Zero or subnormal: multiples of 2^-24.
    const float value = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  if (exponent == 0x1F) return FromBits(sign | 0x7F800000 | fraction << 13);
  return FromBits(sign | (exponent + 112) << 23 | fraction << 13);
}

}  // namespace

std::vector<float> Embedding::Floats() const {
  std::vector<float> values(static_cast<size_t>(dimensions));
  switch (type) {
    case ElementType::kFloat32:
      std::memcpy(values.data(), data.data(), data.size());
      break;
    case ElementType::kFloat16:
      for (size_t i = 0; i < values.size(); ++i) values[i] = FromHalf(Bits16(data, i));
      break;
    case ElementType::kBfloat16:
      for (size_t i = 0; i < values.size(); ++i) values[i] = FromBits(Bits16(data, i) << 16);
      break;
    case ElementType::kInt8:
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = scale * static_cast<float>(static_cast<signed char>(data[i]));
      }
      break;
    case ElementType::kBinary:
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = (static_cast<unsigned char>(data[i / 8]) >> (7 - i % 8) & 1) != 0 ? 1.f : -1.f;
      }
      break;
  }
  return values;
}

}  // namespace quiver::client
