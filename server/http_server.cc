#include "server/http_server.h"

#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "boost/asio/steady_timer.hpp"
#include "boost/asio/strand.hpp"
#include "server/http_session.h"

namespace quiver {
namespace {

namespace asio = boost::asio;
using Tcp = asio::ip::tcp;
using ErrorCode = boost::system::error_code;

// Connections over the limit that may be told so at a time; beyond it they are just closed.
constexpr size_t kMaxRefusals = 64;
// Wait before accepting again when descriptors have run out.
constexpr std::chrono::milliseconds kAcceptRetry(100);

std::string HostPort(const std::string& host, int port) {
  return absl::StrContains(host, ':') ? absl::StrCat("[", host, "]:", port)
                                      : absl::StrCat(host, ":", port);
}

// HTTP/1.1 is what is spoken here, whatever else the client would like.
int ChooseProtocol(SSL*, const unsigned char** out, unsigned char* out_length,
                   const unsigned char* offered, unsigned offered_length, void*) {
  static constexpr unsigned char kHttp11[] = "\x08http/1.1";
  const int found = SSL_select_next_proto(const_cast<unsigned char**>(out), out_length, kHttp11,
                                          sizeof(kHttp11) - 1, offered, offered_length);
  return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

absl::StatusOr<std::unique_ptr<asio::ssl::context>> MakeTls(const TlsFiles& files) {
  auto tls = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  ErrorCode error;
  tls->use_certificate_chain(asio::buffer(files.certificate_chain), error);
  if (!error) {
    tls->use_private_key(asio::buffer(files.private_key), asio::ssl::context::pem, error);
  }
  if (error)
    return absl::InvalidArgumentError(absl::StrCat("--tls-certificate: ", error.message()));
  SSL_CTX_set_min_proto_version(tls->native_handle(), TLS1_2_VERSION);
  // Without them an idle connection keeps 34 KB of buffers.
  SSL_CTX_set_mode(tls->native_handle(), SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_alpn_select_cb(tls->native_handle(), ChooseProtocol, nullptr);
  return tls;
}

}  // namespace

class HttpServer::Listener {
 public:
  Listener(const Options& options, HttpRouter router)
      : shared_(std::make_shared<HttpShared>(options, std::move(router))),
        strand_(asio::make_strand(shared_->io)),
        acceptor_(strand_),
        retry_(strand_) {}

  ~Listener() {
    if (!threads_.empty()) Stop(absl::InfinitePast());
  }

  absl::Status Bind() {
    const Options& options = shared_->options;
    if (options.tls.has_value()) {
      absl::StatusOr<std::unique_ptr<asio::ssl::context>> tls = MakeTls(*options.tls);
      if (!tls.ok()) return tls.status();
      shared_->tls = *std::move(tls);
    }
    ErrorCode error;
    Tcp::resolver resolver(shared_->io);
    const auto found =
        resolver.resolve(options.host, std::to_string(options.port), Tcp::resolver::passive, error);
    if (!error) {
      const Tcp::endpoint endpoint = *found.begin();
      acceptor_.open(endpoint.protocol(), error);
      if (!error) acceptor_.set_option(Tcp::acceptor::reuse_address(true), error);
      if (!error) acceptor_.bind(endpoint, error);
      if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    }
    if (error) {
      return absl::UnavailableError(absl::StrCat("cannot listen for HTTP on ",
                                                 HostPort(options.host, options.port), ": ",
                                                 error.message()));
    }
    const Tcp::endpoint bound = acceptor_.local_endpoint(error);
    port_ = bound.port();
    address_ = HostPort(bound.address().to_string(), port_);
    return absl::OkStatus();
  }

  void Start() {
    asio::post(strand_, [this] { Accept(); });
    for (int i = 0; i < shared_->options.num_threads; ++i) {
      threads_.emplace_back([this] { shared_->io.run(); });
    }
  }

  bool Stop(absl::Time deadline) {
    shared_->draining = true;
    asio::post(strand_, [this] {
      ErrorCode ignored;
      acceptor_.close(ignored);
      retry_.cancel(ignored);
      for (const auto& session : Sessions()) session->Drain();
    });
    const auto all_gone = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(shared_->mutex) {
      return shared_->sessions.empty();
    };
    bool clean;
    {
      absl::MutexLock lock(&shared_->mutex);
      clean = shared_->mutex.AwaitWithDeadline(absl::Condition(&all_gone), deadline);
    }
    for (const auto& session : Sessions()) session->Abort();
    // Without sessions and acceptor there is nothing left to run.
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    return clean;
  }

  const std::string& address() const { return address_; }
  int port() const { return port_; }

  Stats stats() const {
    Stats stats;
    {
      absl::MutexLock lock(&shared_->mutex);
      stats.open_connections = static_cast<int64_t>(shared_->sessions.size());
    }
    stats.accepted_connections = shared_->accepted;
    stats.refused_connections = shared_->refused;
    for (size_t i = 0; i < stats.responses.size(); ++i) stats.responses[i] = shared_->responses[i];
    return stats;
  }

 private:
  std::vector<std::shared_ptr<HttpSession>> Sessions() const {
    absl::MutexLock lock(&shared_->mutex);
    std::vector<std::shared_ptr<HttpSession>> sessions;
    sessions.reserve(shared_->sessions.size());
    for (const auto& [key, session] : shared_->sessions) sessions.push_back(session);
    return sessions;
  }

  void Accept() {
    if (!acceptor_.is_open()) return;
    acceptor_.async_accept(asio::make_strand(shared_->io),
                           [this](ErrorCode error, Tcp::socket socket) {
                             if (!acceptor_.is_open()) return;
                             if (error) return RetryLater();
                             Take(std::move(socket));
                             Accept();
                           });
  }

  void RetryLater() {
    retry_.expires_after(kAcceptRetry);
    retry_.async_wait([this](ErrorCode) { Accept(); });
  }

  void Take(Tcp::socket socket) {
    ++shared_->accepted;
    size_t open;
    {
      absl::MutexLock lock(&shared_->mutex);
      open = shared_->sessions.size();
    }
    const auto limit = static_cast<size_t>(shared_->options.max_connections);
    if (open >= limit) ++shared_->refused;
    if (open >= limit + kMaxRefusals) return;
    const auto session = std::make_shared<HttpSession>(shared_, std::move(socket));
    open < limit ? session->Start() : session->Refuse();
  }

  const std::shared_ptr<HttpShared> shared_;
  const asio::strand<asio::io_context::executor_type> strand_;
  Tcp::acceptor acceptor_;
  asio::steady_timer retry_;
  std::vector<std::thread> threads_;
  std::string address_;
  int port_ = 0;
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Create(const Options& options,
                                                               HttpRouter router) {
  auto listener = std::make_unique<Listener>(options, std::move(router));
  if (absl::Status status = listener->Bind(); !status.ok()) return status;
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(listener)));
}

HttpServer::HttpServer(std::unique_ptr<Listener> listener) : listener_(std::move(listener)) {}
HttpServer::~HttpServer() = default;

void HttpServer::Start() { listener_->Start(); }
const std::string& HttpServer::address() const { return listener_->address(); }
int HttpServer::port() const { return listener_->port(); }
bool HttpServer::Stop(absl::Time deadline) { return listener_->Stop(deadline); }
HttpServer::Stats HttpServer::stats() const { return listener_->stats(); }

}  // namespace quiver
