#include "engine/run/encoding.h"

#include "absl/strings/cord.h"

namespace quiver {
namespace {

// Tells an INTERNAL error of a vector from every other.
constexpr char kUnusableVectorPayload[] = "quiver/unusable-vector";

absl::Status Unusable(absl::string_view message) {
  absl::Status status = absl::InternalError(message);
  status.SetPayload(kUnusableVectorPayload, absl::Cord());
  return status;
}

}  // namespace

cpu::PoolKind PoolKindOf(Pooling pooling) {
  switch (pooling) {
    case Pooling::kLastToken:
      return cpu::PoolKind::kLastToken;
    case Pooling::kMean:
      return cpu::PoolKind::kMean;
    case Pooling::kCls:
      return cpu::PoolKind::kCls;
  }
  return cpu::PoolKind::kLastToken;
}

cpu::Encoding EncodingOf(OutputType type) {
  switch (type) {
    case OutputType::kFloat32:
      return cpu::Encoding::kFloat32;
    case OutputType::kFloat16:
      return cpu::Encoding::kFloat16;
    case OutputType::kBfloat16:
      return cpu::Encoding::kBfloat16;
    case OutputType::kInt8:
      return cpu::Encoding::kInt8;
    case OutputType::kBinary:
      return cpu::Encoding::kBinary;
  }
  return cpu::Encoding::kFloat32;
}

absl::Status VectorError(cpu::VectorStatus status) {
  switch (status) {
    case cpu::VectorStatus::kOk:
      return absl::OkStatus();
    case cpu::VectorStatus::kNotFinite:
      return Unusable("the vector has a value that is not finite in its output type");
    case cpu::VectorStatus::kZeroNorm:
      return Unusable("the vector is zero");
  }
  return Unusable("the vector is not usable");
}

bool IsUnusableVector(const absl::Status& status) {
  return status.GetPayload(kUnusableVectorPayload).has_value();
}

}  // namespace quiver
