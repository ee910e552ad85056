// The one place where the wire's errors become the engine's again: the inverse of
// server/grpc_status.h.
#ifndef QUIVER_TOOLS_QUIVER_RPC_STATUS_H_
#define QUIVER_TOOLS_QUIVER_RPC_STATUS_H_

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/support/status.h"

namespace quiver {

// The field of a google.rpc.BadRequest becomes that of a FieldError, without the path before it, so
// that an input's error reads the same with and without a server.
absl::Status FromRpcStatus(const google::rpc::Status& status);

absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_RPC_STATUS_H_
