// What gRPC tells of a call beside its messages.
#ifndef QUIVER_SERVER_RPC_CONTEXT_H_
#define QUIVER_SERVER_RPC_CONTEXT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "server/api_keys.h"
#include "server/observed_request.h"

namespace quiver {

// What the metadata says of the tenant. INVALID_ARGUMENT if it is too long; empty if there is none.
absl::StatusOr<std::string> Tenant(const grpc::CallbackServerContext& context);

// UNAUTHENTICATED unless the metadata has a key of `keys`; null lets everybody in.
absl::Status CheckKey(const ApiKeys* keys, const grpc::CallbackServerContext& context);

// The call as `observer`, which may be null, is told of it.
ObservedRequest Observe(RequestObserver* observer, Rpc rpc, grpc::CallbackServerContext* context);

// Names the call's trace, if it has one, in its trailing metadata.
void TellTrace(const ObservedRequest& observed, grpc::CallbackServerContext* context);

absl::Time Deadline(const grpc::CallbackServerContext& context);

}  // namespace quiver

#endif  // QUIVER_SERVER_RPC_CONTEXT_H_
