#ifndef QUIVER_SERVER_GRPC_SERVER_H_
#define QUIVER_SERVER_GRPC_SERVER_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "server/tls_files.h"

namespace quiver {

// The gRPC listener: one service, grpc.health.v1 and reflection, every limit set.
class GrpcServer {
 public:
  struct Options {
    // A name, or an IPv4 or IPv6 address without brackets.
    std::string host = "127.0.0.1";
    // 0 for any free one.
    int port = 50051;
    // What connections are encrypted with; none: not at all.
    std::optional<TlsFiles> tls = std::nullopt;
    // Serialized size of a request; a larger one is RESOURCE_EXHAUSTED.
    int max_message_bytes = 32 << 20;
    // Of a reply: the largest request's vectors.
    int max_reply_bytes = 256 << 20;
    // Calls under way on one connection; more wait at the client.
    int max_concurrent_streams = 1024;
    int max_metadata_bytes = 16 * 1024;
    // Bytes that gRPC may hold for all connections together before it slows them down.
    size_t max_buffer_bytes = size_t{1} << 30;
    // Threads that gRPC may start for calls.
    int max_threads = 64;
    // A silent connection is pinged after this, and closed if no answer comes in time.
    absl::Duration keepalive_time = absl::Minutes(2);
    absl::Duration keepalive_timeout = absl::Seconds(20);
    // A client that pings more often is disconnected.
    absl::Duration min_client_ping_interval = absl::Seconds(10);
    // A connection must have said what it wants by then.
    absl::Duration handshake_timeout = absl::Seconds(20);
  };

  // Listens and answers; health is NOT_SERVING. `service`, registered as `service_name` for health
  // too, must outlive the server. UNAVAILABLE if the address cannot be had, with the reason.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Create(Options options, grpc::Service* service,
                                                            const std::string& service_name);
  // As Shutdown without grace.
  ~GrpcServer();

  // HOST:PORT as a client may use it, with the port that was bound.
  const std::string& address() const { return address_; }
  int port() const { return port_; }

  // What grpc.health.v1 says of the service and of "", the whole server.
  void SetServing(bool serving);

  // Takes no more connections and calls, and waits for those under way, of which what is left after
  // `grace` is cancelled. A cancelled call ends when the engine has let go of its items, so the
  // embedder is drained before; open streams without work end here.
  void Shutdown(absl::Duration grace);

 private:
  GrpcServer(std::unique_ptr<grpc::Server> server, std::string service_name, std::string address,
             int port);

  const std::unique_ptr<grpc::Server> server_;
  const std::string service_name_;
  const std::string address_;
  const int port_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_GRPC_SERVER_H_
