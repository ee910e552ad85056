#include "server/grpc_status.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/embedder.h"
#include "engine/schedule/scheduler.h"
#include "google/rpc/error_details.pb.h"

namespace quiver {

google::rpc::Status ToRpcStatus(const absl::Status& status, absl::string_view field_prefix) {
  google::rpc::Status out;
  out.set_code(static_cast<int>(status.code()));
  std::string message(status.message());
  const std::string field = ErrorField(status);
  if (!field.empty()) {
    const std::string path = absl::StrCat(field_prefix, field);
    google::rpc::BadRequest details;
    auto* violation = details.add_field_violations();
    violation->set_field(path);
    violation->set_description(message);
    out.add_details()->PackFrom(details);
    message = absl::StrCat(path, ": ", message);
  }
  const absl::Duration delay = RetryDelay(status);
  if (delay > absl::ZeroDuration()) {
    google::rpc::RetryInfo details;
    absl::Duration rest;
    details.mutable_retry_delay()->set_seconds(absl::IDivDuration(delay, absl::Seconds(1), &rest));
    details.mutable_retry_delay()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
    out.add_details()->PackFrom(details);
  }
  out.set_message(message);
  return out;
}

grpc::Status ToGrpcStatus(const absl::Status& status, absl::string_view field_prefix) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status rpc = ToRpcStatus(status, field_prefix);
  return grpc::Status(static_cast<grpc::StatusCode>(rpc.code()), rpc.message(),
                      rpc.details().empty() ? std::string() : rpc.SerializeAsString());
}

}  // namespace quiver
