// The wire's errors as the client's.
#ifndef QUIVER_TOOLS_CLIENT_RPC_STATUS_H_
#define QUIVER_TOOLS_CLIENT_RPC_STATUS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"

namespace quiver::client {

// INVALID_ARGUMENT with an ErrorField: the message is "FIELD: MESSAGE".
absl::Status FieldError(absl::string_view field, absl::string_view message);

// A google.rpc.BadRequest becomes a FieldError, without the path before the field, as a request may
// be a part of what the caller sent; a google.rpc.RetryInfo becomes the RetryDelay.
absl::Status FromRpcStatus(const google::rpc::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

// Whether another try may succeed.
bool Retryable(const absl::Status& status);

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_RPC_STATUS_H_
