// How the CLI reaches a server.
#ifndef QUIVER_TOOLS_QUIVER_CONNECTION_H_
#define QUIVER_TOOLS_QUIVER_CONNECTION_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/channel.h"
#include "quiver/client.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace quiver {

// What goes with a --server.
struct ConnectionFlags {
  bool tls = false;
  // Authorities in PEM that the server's certificate may be from; empty for the system's.
  std::string tls_ca_file;
  // The name that its certificate must have, where it is not that of the address.
  std::string tls_server_name;
  // The file's first line is the key; without a file, the environment's QUIVER_API_KEY is.
  std::string api_key_file;

  // Each flag needs `server`.
  void AddTo(CLI::App* command, CLI::Option* server);

  // INVALID_ARGUMENT names a flag or the environment's variable whose file or value cannot be used.
  absl::StatusOr<client::ConnectionOptions> Read() const;
};

// A channel to HOST:PORT without limits of its own on messages, with a connection that no other
// channel uses, that sends the API key with each call. Errors are those of ConnectionFlags::Read.
absl::StatusOr<std::shared_ptr<grpc::Channel>> ConnectAlone(const std::string& server,
                                                            const ConnectionFlags& flags);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_CONNECTION_H_
