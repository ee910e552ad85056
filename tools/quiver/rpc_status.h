// The one place where a server's errors become the engine's again: the inverse of
// server/grpc_status.h.
#ifndef QUIVER_TOOLS_QUIVER_RPC_STATUS_H_
#define QUIVER_TOOLS_QUIVER_RPC_STATUS_H_

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace quiver {

// What the client library says of a field becomes a FieldError, so that an input's error reads the
// same with and without a server.
absl::Status FromClientStatus(const absl::Status& status);

absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_RPC_STATUS_H_
