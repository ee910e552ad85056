#include "tools/quiver/rpc_status.h"

#include <string>

#include "engine/field_error.h"
#include "google/rpc/error_details.pb.h"

namespace quiver {

absl::Status FromRpcStatus(const google::rpc::Status& status) {
  for (const google::protobuf::Any& detail : status.details()) {
    google::rpc::BadRequest bad;
    if (!detail.UnpackTo(&bad) || bad.field_violations().empty()) continue;
    const auto& violation = bad.field_violations(0);
    // npos + 1 is 0: a path of one part is its own last part.
    return FieldError(violation.field().substr(violation.field().rfind('.') + 1),
                      violation.description());
  }
  return absl::Status(static_cast<absl::StatusCode>(status.code()), status.message());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  google::rpc::Status rpc;
  if (status.error_details().empty() || !rpc.ParseFromString(status.error_details())) {
    rpc.Clear();
    rpc.set_code(static_cast<int>(status.error_code()));
    rpc.set_message(status.error_message());
  }
  return FromRpcStatus(rpc);
}

}  // namespace quiver
