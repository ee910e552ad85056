#include "kernels/cpu/pool_encode.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/stored_type.h"

namespace quiver::cpu {
namespace {

static_assert(std::endian::native == std::endian::little, "vectors travel in little-endian order");

void EncodeHalves(Encoding encoding, const float* vector, int64_t dim, unsigned char* out) {
  for (int64_t i = 0; i < dim; ++i) {
    const uint16_t element =
        encoding == Encoding::kFloat16 ? FloatToHalf(vector[i]) : FloatToBfloat16(vector[i]);
    std::memcpy(out + 2 * i, &element, sizeof(element));
  }
}

float EncodeInt8(const float* vector, int64_t dim, unsigned char* out) {
  float max = 0.0f;
  for (int64_t i = 0; i < dim; ++i) max = std::max(max, std::fabs(vector[i]));
  const float scale = max / 127.0f;
  for (int64_t i = 0; i < dim; ++i) {
    // Dividing by the scale could overflow where the scale is subnormal; the ratio cannot.
    const double element = std::nearbyint(static_cast<double>(vector[i]) / max * 127.0);
    out[i] = static_cast<unsigned char>(static_cast<int8_t>(element));
  }
  return scale;
}

void EncodeBinary(const float* vector, int64_t dim, unsigned char* out) {
  std::memset(out, 0, EncodedBytes(Encoding::kBinary, dim));
  for (int64_t i = 0; i < dim; ++i) {
    if (vector[i] > 0.0f) out[i / 8] |= static_cast<unsigned char>(0x80 >> (i % 8));
  }
}

}  // namespace

void PoolRows(PoolKind kind, const float* hidden, int64_t stride, int64_t rows, int64_t dim,
              float* out) {
  if (kind != PoolKind::kMean) {
    const float* row = hidden + (kind == PoolKind::kCls ? 0 : (rows - 1) * stride);
    std::copy_n(row, dim, out);
    return;
  }
  std::vector<double> sum(static_cast<size_t>(dim), 0.0);
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = hidden + r * stride;
    for (int64_t i = 0; i < dim; ++i) sum[i] += row[i];
  }
  for (int64_t i = 0; i < dim; ++i) {
    out[i] = static_cast<float>(sum[i] / static_cast<double>(rows));
  }
}

VectorStatus FinishVector(float* vector, int64_t dim, bool normalize) {
  // The squares of floats neither overflow nor vanish in double.
  double square_sum = 0.0;
  for (int64_t i = 0; i < dim; ++i) {
    square_sum += static_cast<double>(vector[i]) * static_cast<double>(vector[i]);
  }
  if (!std::isfinite(square_sum)) return VectorStatus::kNotFinite;
  if (square_sum == 0.0) return VectorStatus::kZeroNorm;
  if (normalize) {
    const double factor = 1.0 / std::sqrt(square_sum);
    for (int64_t i = 0; i < dim; ++i) vector[i] = static_cast<float>(vector[i] * factor);
  }
  return VectorStatus::kOk;
}

VectorStatus EncodeVector(Encoding encoding, const float* vector, int64_t dim, void* out,
                          float* scale) {
  auto* bytes = static_cast<unsigned char*>(out);
  *scale = 0.0f;
  switch (encoding) {
    case Encoding::kFloat32:
      std::memcpy(bytes, vector, static_cast<size_t>(dim) * sizeof(float));
      return VectorStatus::kOk;
    case Encoding::kFloat16:
    case Encoding::kBfloat16: {
      EncodeHalves(encoding, vector, dim, bytes);
      // Values at or above these round to infinity.
      const float limit = encoding == Encoding::kFloat16 ? 65520.0f : 0x1.ffp127f;
      for (int64_t i = 0; i < dim; ++i) {
        if (!(std::fabs(vector[i]) < limit)) return VectorStatus::kNotFinite;
      }
      return VectorStatus::kOk;
    }
    case Encoding::kInt8:
      *scale = EncodeInt8(vector, dim, bytes);
      return VectorStatus::kOk;
    case Encoding::kBinary:
      EncodeBinary(vector, dim, bytes);
      return VectorStatus::kOk;
  }
  return VectorStatus::kNotFinite;
}

}  // namespace quiver::cpu
