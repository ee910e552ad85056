#ifndef QUIVER_TOOLS_CLIENT_CHANNEL_H_
#define QUIVER_TOOLS_CLIENT_CHANNEL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "grpcpp/channel.h"
#include "quiver/client.h"

namespace quiver::client {

// INVALID_ARGUMENT names the field of ConnectionOptions that gRPC, or a server, could not take.
absl::Status CheckConnection(const ConnectionOptions& options);

// A channel without limits of its own on messages, with a connection that no other channel uses,
// that sends key and tenant with each call. `target` is HOST:PORT; for TLS, `server_name`, unless
// empty, is who must answer there. `options` must have passed CheckConnection.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& target, const std::string& server_name,
                                          const ConnectionOptions& options);

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_CHANNEL_H_
