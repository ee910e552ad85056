// From a sequence's hidden states to the bytes of its vector: pool, cut, normalize, encode.
#ifndef QUIVER_KERNELS_CPU_POOL_ENCODE_H_
#define QUIVER_KERNELS_CPU_POOL_ENCODE_H_

#include <cstddef>
#include <cstdint>

namespace quiver::cpu {

enum class PoolKind : uint8_t { kLastToken, kMean, kCls };

// Pools rows [0, rows) of `hidden` (row stride in elements), at least one, into out [dim]. Cutting
// a vector is asking for fewer dimensions: `dim` may be less than the hidden size. The mean is
// accumulated in double, in order of rows.
void PoolRows(PoolKind kind, const float* hidden, int64_t stride, int64_t rows, int64_t dim,
              float* out);

enum class VectorStatus : uint8_t {
  kOk,
  // An element is NaN or infinite, or not finite in the type asked for.
  kNotFinite,
  // Every element is zero.
  kZeroNorm,
};

// Checks `vector`, and if `normalize` scales it to L2 norm 1 (the norm is accumulated in double, in
// order). A vector that is not kOk is left as it is. `dim` is at least 1.
VectorStatus FinishVector(float* vector, int64_t dim, bool normalize);

// How a vector travels; multi-byte elements are little-endian.
//   kInt8:   value = scale * element, scale = max |value| / 127, rounded to nearest even.
//   kBinary: one bit an element, 1 where the value is > 0; element i is bit 7 - i % 8 of byte
//            i / 8; the last byte is padded with zero bits.
enum class Encoding : uint8_t { kFloat32, kFloat16, kBfloat16, kInt8, kBinary };

// Bytes of an encoded vector.
constexpr size_t EncodedBytes(Encoding encoding, int64_t dim) {
  const size_t n = static_cast<size_t>(dim);
  switch (encoding) {
    case Encoding::kFloat32:
      return 4 * n;
    case Encoding::kFloat16:
    case Encoding::kBfloat16:
      return 2 * n;
    case Encoding::kInt8:
      return n;
    case Encoding::kBinary:
      return (n + 7) / 8;
  }
  return 0;
}

// Writes EncodedBytes(encoding, dim) bytes to `out` and, for kInt8, the factor of each element to
// *scale (0 otherwise). `vector` passed FinishVector. kNotFinite if a value overflows the type;
// `out` is then unspecified.
VectorStatus EncodeVector(Encoding encoding, const float* vector, int64_t dim, void* out,
                          float* scale);

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_POOL_ENCODE_H_
