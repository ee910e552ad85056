// One connection of the HTTP server. Includes Boost.Beast: for http_server.cc only.
#ifndef QUIVER_SERVER_HTTP_SESSION_H_
#define QUIVER_SERVER_HTTP_SESSION_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/ssl/context.hpp"
#include "boost/asio/steady_timer.hpp"
#include "boost/beast/core.hpp"
#include "boost/beast/http.hpp"
#include "server/http_server.h"
#include "server/http_stream.h"

namespace quiver {

class HttpSession;

// What the sessions of a server share. A session keeps it alive, so that an answer that comes after
// the server's end finds nothing torn down.
struct HttpShared {
  HttpShared(const HttpServer::Options& server_options, HttpRouter server_router)
      : options(server_options), router(std::move(server_router)), io(server_options.num_threads) {}

  const HttpServer::Options options;
  const HttpRouter router;
  // Null without TLS.
  std::unique_ptr<boost::asio::ssl::context> tls;
  boost::asio::io_context io;
  // Set by Stop: answers end their connections.
  std::atomic<bool> draining{false};
  std::atomic<int64_t> accepted{0};
  std::atomic<int64_t> refused{0};
  std::array<std::atomic<int64_t>, kHttpStatuses.size()> responses = {};

  absl::Mutex mutex;
  // Open connections; what is not here is gone.
  std::unordered_map<HttpSession*, std::shared_ptr<HttpSession>> sessions ABSL_GUARDED_BY(mutex);
};

// All private methods run on the connection's strand. Each step ends by starting the next
// operation or by Close().
class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  HttpSession(std::shared_ptr<HttpShared> shared, boost::asio::ip::tcp::socket socket);

  // Joins the shared sessions and serves.
  void Start();
  // Joins them only to say 503.
  void Refuse();
  // From any thread: ends the connection if it is idle.
  void Drain();
  // From any thread: ends it whatever it is doing.
  void Abort();

 private:
  using ErrorCode = boost::beast::error_code;
  enum class State : uint8_t { kIdle, kReading, kHandling, kWriting, kClosed };

  // Joins the shared sessions, shakes hands if there is TLS, and goes on with `next`.
  void Begin(void (HttpSession::*next)());
  void SayTooMany();
  void AwaitRequest();
  // The same, of a request that is not here yet.
  void AwaitBytes();
  void ReadHeader();
  void OnHeader(ErrorCode error);
  // An answer that makes reading on pointless, or nothing.
  std::optional<HttpResponse> CheckHeader();
  void SendContinue();
  void ReadBody();
  void OnBody(ErrorCode error);
  void Dispatch();
  // Notices that the client goes away while its request is being handled.
  void WatchClient();
  // Whether its side of the connection has ended.
  bool ClientHasGone();
  void OnReadError(ErrorCode error);
  void TellRefusal(int status);
  void CountResponse(int status);
  // Refuses and ends the connection, although not all was read that the client sends.
  void Reject(HttpResponse response);
  void Respond(HttpResponse response);
  void OnWritten(ErrorCode error);
  // Ends a connection that was read to the end: over TLS by its own goodbye, without which clients
  // take the end for an attack.
  void SayGoodbye();
  // Reads and forgets for a while before closing, as closing at once would reset the connection and
  // might take the answer with it.
  void Linger();
  void Close();

  void SetTimeout(absl::Duration timeout);
  void SetTimeoutFor(int64_t bytes);

  // What has come and is not used yet.
  absl::string_view Received() const {
    return {static_cast<const char*>(buffer_.data().data()), buffer_.size()};
  }

  const std::shared_ptr<HttpShared> shared_;
  HttpStream stream_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  std::optional<boost::beast::http::response<boost::beast::http::string_body>> response_;
  std::string peer_;
  std::string path_;
  std::string query_;
  const HttpRouter::Route* route_ = nullptr;
  std::shared_ptr<CancellationFlag> cancellation_;
  boost::asio::steady_timer watch_timer_;
  State state_ = State::kIdle;
  bool head_ = false;
  bool keep_alive_ = true;
  bool unread_ = false;
  bool watching_ = false;
  // Whether an empty line before this request has been passed over.
  bool skipped_line_ = false;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_HTTP_SESSION_H_
