#include "tools/client/rpc_status.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "google/rpc/error_details.pb.h"
#include "quiver/client_types.h"

namespace quiver::client {
namespace {

constexpr char kFieldPayload[] = "quiver.dev/client-field";
constexpr char kDelayPayload[] = "type.googleapis.com/google.rpc.RetryInfo";

}  // namespace

absl::Status FieldError(absl::string_view field, absl::string_view message) {
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(field, ": ", message));
  status.SetPayload(kFieldPayload, absl::Cord(field));
  return status;
}

std::string ErrorField(const absl::Status& status) {
  const absl::optional<absl::Cord> field = status.GetPayload(kFieldPayload);
  return field ? std::string(*field) : std::string();
}

absl::Duration RetryDelay(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kDelayPayload);
  google::rpc::RetryInfo info;
  if (!payload || !info.ParseFromString(std::string(*payload))) return absl::ZeroDuration();
  return absl::Seconds(info.retry_delay().seconds()) +
         absl::Nanoseconds(info.retry_delay().nanos());
}

absl::Status FromRpcStatus(const google::rpc::Status& status) {
  absl::Status out(static_cast<absl::StatusCode>(status.code()), status.message());
  for (const google::protobuf::Any& detail : status.details()) {
    google::rpc::BadRequest bad;
    if (detail.UnpackTo(&bad) && !bad.field_violations().empty()) {
      const auto& violation = bad.field_violations(0);
      // npos + 1 is 0: a path of one part is its own last part.
      return FieldError(violation.field().substr(violation.field().rfind('.') + 1),
                        violation.description());
    }
    if (detail.Is<google::rpc::RetryInfo>()) {
      out.SetPayload(kDelayPayload, absl::Cord(detail.value()));
    }
  }
  return out;
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

bool Retryable(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status);
}

}  // namespace quiver::client
