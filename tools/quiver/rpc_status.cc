#include "tools/quiver/rpc_status.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/field_error.h"
#include "quiver/client_types.h"
#include "tools/client/rpc_status.h"

namespace quiver {

absl::Status FromClientStatus(const absl::Status& status) {
  const std::string field = client::ErrorField(status);
  if (field.empty()) return status;
  return FieldError(field, absl::StripPrefix(status.message(), absl::StrCat(field, ": ")));
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  return FromClientStatus(client::FromGrpcStatus(status));
}

}  // namespace quiver
