// A small HTTP/1.1 server for thousands of keep-alive connections on few threads.
#ifndef QUIVER_SERVER_HTTP_SERVER_H_
#define QUIVER_SERVER_HTTP_SERVER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/api_keys.h"
#include "server/http_router.h"
#include "server/http_types.h"
#include "server/tls_files.h"

namespace quiver {

// Requests of one connection are answered one after another, in their order. Whatever leaves doubt
// about where a request ends (Content-Length beside Transfer-Encoding, codings other than chunked)
// is refused and ends the connection. Thread-safe.
class HttpServer {
 public:
  struct Options {
    std::string host = "127.0.0.1";
    // 0: any free one.
    int port = 0;
    int num_threads = 2;
    // Connections at a time; a further one gets 503.
    int max_connections = 4096;
    // Bytes of a request line and its headers; more gets 431.
    uint32_t max_header_bytes = 16 << 10;
    // Longest wait for the first byte of a connection's next request.
    absl::Duration idle_timeout = absl::Seconds(75);
    // Longest wait for the rest of its header. A body and an answer get this too, and a second for
    // each kMinBytesPerSecond.
    absl::Duration read_timeout = absl::Seconds(10);
    // What connections are encrypted with, at least TLS 1.2; none: not at all.
    std::optional<TlsFiles> tls = std::nullopt;
    // Whose keys routes that need one take; null for anybody.
    std::shared_ptr<const ApiKeys> api_keys = nullptr;
    // Called for each refusal, on one of the server's threads; may be null.
    std::function<void(const HttpRefusal&)> on_refusal = nullptr;
  };
  static constexpr int64_t kMinBytesPerSecond = 64 << 10;

  // Binds; connections wait in the kernel until Start(). UNAVAILABLE names the address that cannot
  // be had, and why.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Create(const Options& options,
                                                            HttpRouter router);
  // Stop() without delay.
  ~HttpServer();

  // Once.
  void Start();

  // What was bound, as "127.0.0.1:30000" or "[::1]:30000".
  const std::string& address() const;
  int port() const;

  // Accepts nothing more, closes idle connections, lets requests that have begun end by `deadline`,
  // and closes what is left then. Returns whether nothing was left. Once; waits.
  bool Stop(absl::Time deadline);

  struct Stats {
    int64_t open_connections = 0;
    // Since the start.
    int64_t accepted_connections = 0;
    int64_t refused_connections = 0;
    // Answers by status, as kHttpStatuses lists them.
    std::array<int64_t, kHttpStatuses.size()> responses = {};
  };
  Stats stats() const;

 private:
  class Listener;

  explicit HttpServer(std::unique_ptr<Listener> listener);

  const std::unique_ptr<Listener> listener_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_HTTP_SERVER_H_
