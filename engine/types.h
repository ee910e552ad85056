// Vocabulary of the engine: the small value types that every part of it speaks.
#ifndef QUIVER_ENGINE_TYPES_H_
#define QUIVER_ENGINE_TYPES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace quiver {

using TokenId = int32_t;

// What to do with an input longer than the model's limit. kNone refuses it; kRight keeps the
// beginning of the text, kLeft its end. The prompt and the special tokens always stay.
enum class Truncation : uint8_t { kNone, kRight, kLeft };

// Element type of a returned vector; encodings as documented in embed.proto.
enum class OutputType : uint8_t { kFloat32, kFloat16, kBfloat16, kInt8, kBinary };

// Which queue a task waits in. Interactive work overtakes bulk work; bulk keeps a guaranteed share.
enum class Lane : uint8_t { kInteractive, kBulk };
inline constexpr int kNumLanes = 2;

// How the vector of one sequence is made from its pooled hidden state: the leading `dimensions`
// values are kept, then scaled to length 1 if `normalize`, then encoded as `type`.
struct OutputSpec {
  int dimensions = 0;
  bool normalize = true;
  OutputType type = OutputType::kFloat32;

  friend bool operator==(const OutputSpec&, const OutputSpec&) = default;
};

// Bytes that `dimensions` elements of `type` take.
constexpr size_t OutputBytes(OutputType type, int dimensions) {
  const size_t n = static_cast<size_t>(dimensions);
  switch (type) {
    case OutputType::kFloat32:
      return 4 * n;
    case OutputType::kFloat16:
    case OutputType::kBfloat16:
      return 2 * n;
    case OutputType::kInt8:
      return n;
    case OutputType::kBinary:
      return (n + 7) / 8;
  }
  return 0;
}

// One vector, encoded for the wire.
struct EncodedVector {
  // Packed little-endian elements, OutputBytes(type, dimensions) long.
  std::string data;
  // Factor of each element for kInt8, else 0.
  float scale = 0.0f;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_TYPES_H_
