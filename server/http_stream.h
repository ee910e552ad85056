// A connection's bytes, in the clear or through TLS. Includes Boost.Asio and Beast: for
// http_session.cc, http_server.cc and otlp_client.cc only.
#ifndef QUIVER_SERVER_HTTP_STREAM_H_
#define QUIVER_SERVER_HTTP_STREAM_H_

#include <optional>
#include <string>
#include <utility>

#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/ssl/context.hpp"
#include "boost/asio/ssl/host_name_verification.hpp"
#include "boost/asio/ssl/stream.hpp"
#include "boost/beast/core/tcp_stream.hpp"

namespace quiver {

// An AsyncReadStream and AsyncWriteStream whose operations end by the time set on tcp().
class HttpStream {
 public:
  using executor_type = boost::beast::tcp_stream::executor_type;

  // `tls` may be null; else it must outlive this, and Handshake() comes first.
  HttpStream(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context* tls)
      : tcp_(std::move(socket)) {
    if (tls != nullptr) tls_.emplace(tcp_, *tls);
  }

  bool is_tls() const { return tls_.has_value(); }
  boost::beast::tcp_stream& tcp() { return tcp_; }
  executor_type get_executor() { return tcp_.get_executor(); }

  template <typename Handler>
  void Handshake(Handler&& handler) {
    tls_->async_handshake(boost::asio::ssl::stream_base::server, std::forward<Handler>(handler));
  }

  // As a client, of a server whose certificate must name `host` and come from an authority that the
  // context knows.
  template <typename Handler>
  void HandshakeWith(const std::string& host, Handler&& handler) {
    SSL_set_tlsext_host_name(tls_->native_handle(), host.c_str());
    tls_->set_verify_mode(boost::asio::ssl::verify_peer);
    tls_->set_verify_callback(boost::asio::ssl::host_name_verification(host));
    tls_->async_handshake(boost::asio::ssl::stream_base::client, std::forward<Handler>(handler));
  }

  // TLS's goodbye, and the wait for the other side's.
  template <typename Handler>
  void Shutdown(Handler&& handler) {
    tls_->async_shutdown(std::forward<Handler>(handler));
  }

  template <typename Buffers, typename Handler>
  auto async_read_some(const Buffers& buffers, Handler&& handler) {
    return tls_.has_value() ? tls_->async_read_some(buffers, std::forward<Handler>(handler))
                            : tcp_.async_read_some(buffers, std::forward<Handler>(handler));
  }
  template <typename Buffers, typename Handler>
  auto async_write_some(const Buffers& buffers, Handler&& handler) {
    return tls_.has_value() ? tls_->async_write_some(buffers, std::forward<Handler>(handler))
                            : tcp_.async_write_some(buffers, std::forward<Handler>(handler));
  }

 private:
  boost::beast::tcp_stream tcp_;
  std::optional<boost::asio::ssl::stream<boost::beast::tcp_stream&>> tls_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_HTTP_STREAM_H_
