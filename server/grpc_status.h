// The one place where the engine's errors become the wire's.
#ifndef QUIVER_SERVER_GRPC_STATUS_H_
#define QUIVER_SERVER_GRPC_STATUS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"

namespace quiver {

// As an item's own result. A retry delay becomes google.rpc.RetryInfo; the field of an
// INVALID_ARGUMENT becomes google.rpc.BadRequest, its path prefixed with `field_prefix`
// ("inputs[3].") and put before the message.
google::rpc::Status ToRpcStatus(const absl::Status& status, absl::string_view field_prefix = "");

// As the outcome of a whole RPC; details travel in grpc-status-details-bin.
grpc::Status ToGrpcStatus(const absl::Status& status, absl::string_view field_prefix = "");

}  // namespace quiver

#endif  // QUIVER_SERVER_GRPC_STATUS_H_
