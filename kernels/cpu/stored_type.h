// Element types that weights are stored in, and exact conversions between them and float.
#ifndef QUIVER_KERNELS_CPU_STORED_TYPE_H_
#define QUIVER_KERNELS_CPU_STORED_TYPE_H_

#include <bit>
#include <cstddef>
#include <cstdint>

namespace quiver::cpu {

enum class StoredType : uint8_t { kF32, kF16, kBF16 };

constexpr size_t StoredSize(StoredType type) { return type == StoredType::kF32 ? 4 : 2; }

// IEEE 754 binary16. To half: rounded to nearest even, overflow gives infinity, a NaN stays a
// (quiet) NaN.
uint16_t FloatToHalf(float value);
float HalfToFloat(uint16_t half);

// The upper half of a float32, rounded to nearest even; a NaN stays a (quiet) NaN.
constexpr uint16_t FloatToBfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
constexpr float Bfloat16ToFloat(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

// Widens `count` elements, exactly. `source` need not be aligned.
void WidenToFloat(StoredType type, const void* source, int64_t count, float* out);

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_STORED_TYPE_H_
