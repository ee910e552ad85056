// What gRPC tells of a call beside its messages.
#ifndef QUIVER_SERVER_RPC_CONTEXT_H_
#define QUIVER_SERVER_RPC_CONTEXT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"

namespace quiver {

// Metadata key under which a client says on whose behalf it calls, and the bytes of its value.
inline constexpr char kTenantKey[] = "quiver-tenant";
inline constexpr size_t kMaxTenantBytes = 128;

// INVALID_ARGUMENT if the value is too long; empty if there is none.
absl::StatusOr<std::string> Tenant(const grpc::CallbackServerContext& context);

absl::Time Deadline(const grpc::CallbackServerContext& context);

}  // namespace quiver

#endif  // QUIVER_SERVER_RPC_CONTEXT_H_
