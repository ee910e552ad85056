#ifndef QUIVER_TOOLS_CLIENT_GRPC_ENDPOINT_H_
#define QUIVER_TOOLS_CLIENT_GRPC_ENDPOINT_H_

#include "quiver/client.h"
#include "tools/client/endpoint.h"

namespace quiver::client {

// Servers over gRPC, a channel each. `options` must have passed CheckConnection. gRPC's threads let
// go of a call before they tell its end, so that they never hold the last of a channel, for whose
// end they would wait in vain: an endpoint may be destroyed once everything that it started ended.
EndpointFactory GrpcEndpoints(ConnectionOptions options);

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_GRPC_ENDPOINT_H_
