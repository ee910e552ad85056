#include "engine/field_error.h"

#include "absl/strings/cord.h"
#include "absl/types/optional.h"

namespace quiver {
namespace {
constexpr char kPayloadType[] = "quiver.dev/field";
}  // namespace

absl::Status FieldError(absl::string_view field, absl::string_view message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kPayloadType, absl::Cord(field));
  return status;
}

std::string ErrorField(const absl::Status& status) {
  const absl::optional<absl::Cord> field = status.GetPayload(kPayloadType);
  return field ? std::string(*field) : std::string();
}

}  // namespace quiver
