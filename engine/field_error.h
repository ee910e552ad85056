// Errors about one field of a request, so that the server can point at it.
#ifndef QUIVER_ENGINE_FIELD_ERROR_H_
#define QUIVER_ENGINE_FIELD_ERROR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace quiver {

// INVALID_ARGUMENT with `message` about `field`, as it is called in embed.proto within its message
// ("text", "dimensions"). The message need not repeat the field's name.
absl::Status FieldError(absl::string_view field, absl::string_view message);

// The field that an error made by FieldError speaks of, else empty.
std::string ErrorField(const absl::Status& status);

}  // namespace quiver

#endif  // QUIVER_ENGINE_FIELD_ERROR_H_
