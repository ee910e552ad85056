#include "server/otlp_client.h"

#include <chrono>
#include <cstdint>
#include <exception>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/ssl/context.hpp"
#include "boost/beast/core.hpp"
#include "boost/beast/http.hpp"
#include "nlohmann/json.hpp"
#include "server/http_stream.h"
#include "server/version.h"

namespace quiver {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using ErrorCode = boost::beast::error_code;
using Kind = SpanSender::Result::Kind;
using Tcp = asio::ip::tcp;

// How often the deadline, which another thread may bring nearer, is looked at.
constexpr std::chrono::milliseconds kPoll(50);
// An answer has a few bytes, or a proxy's page.
constexpr uint64_t kMaxAnswerBytes = 64 << 10;

// Held by the handlers of its operations, so that one that was given up finds it there.
struct Connection {
  Connection(asio::io_context* io, asio::ssl::context* tls)
      : resolver(*io), stream(Tcp::socket(*io), tls) {}

  Tcp::resolver resolver;
  HttpStream stream;
  boost::beast::flat_buffer buffer{kMaxAnswerBytes};
  http::request<http::string_body> request;
  std::optional<http::response_parser<http::string_body>> parser;
};

// How many spans the collector refused of those it took.
int64_t RejectedSpans(const std::string& answer) {
  const nlohmann::json json = nlohmann::json::parse(answer, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return 0;
  const auto partial = json.find("partialSuccess");
  if (partial == json.end() || !partial->is_object()) return 0;
  const auto rejected = partial->find("rejectedSpans");
  if (rejected == partial->end()) return 0;
  // The encoding allows both forms of a 64-bit number.
  int64_t count = 0;
  if (rejected->is_string())
    return absl::SimpleAtoi(rejected->get<std::string>(), &count) ? count : 0;
  return rejected->is_number_integer() ? rejected->get<int64_t>() : 0;
}

SpanSender::Result Judge(const http::response<http::string_body>& answer) {
  const unsigned status = answer.result_int();
  SpanSender::Result result;
  if (status >= 200 && status < 300) {
    result.rejected_spans = RejectedSpans(answer.body());
    return result;
  }
  // The protocol names these; every other status is for good.
  const bool may_pass = status == 429 || status == 502 || status == 503 || status == 504;
  result.kind = may_pass ? Kind::kTryAgain : Kind::kRefused;
  result.error = absl::StrCat("the collector answered HTTP ", status);
  const auto after = answer[http::field::retry_after];
  int64_t seconds = 0;
  if (absl::SimpleAtoi(absl::string_view(after.data(), after.size()), &seconds) && seconds > 0) {
    result.retry_after = absl::Seconds(seconds);
  }
  return result;
}

}  // namespace

class OtlpClient::Impl {
 public:
  explicit Impl(OtlpOptions options) : options_(std::move(options)) {
    if (!options_.endpoint.tls) return;
    tls_.emplace(asio::ssl::context::tls_client);
    tls_->set_default_verify_paths();
  }

  Result Send(const std::string& body, const Deadline& deadline) {
    ErrorCode error;
    while (true) {
      const bool reused = connection_ != nullptr;
      if (!reused) error = Connect(deadline);
      if (!error) error = Exchange(body, deadline);
      if (!error) break;
      connection_.reset();
      // A connection that was kept may have ended meanwhile.
      if (!reused || error == boost::beast::error::timeout) {
        return {.kind = Kind::kTryAgain,
                .error = absl::StrCat(options_.endpoint.authority(), ": ", error.message())};
      }
      error = {};
    }
    const http::response<http::string_body> answer = connection_->parser->release();
    if (!answer.keep_alive()) connection_.reset();
    return Judge(answer);
  }

 private:
  // Starts an operation of the connection with the handler it is given, and waits for it. One that
  // has not ended by the deadline goes on without anybody who waits.
  template <typename Start>
  ErrorCode Await(const Deadline& deadline, Start start) {
    const auto outcome = std::make_shared<std::optional<ErrorCode>>();
    start([outcome, held = connection_](ErrorCode error, auto&&...) { *outcome = error; });
    io_.restart();
    while (!outcome->has_value()) {
      if (absl::Now() >= deadline()) {
        connection_->resolver.cancel();
        connection_->stream.tcp().close();
        return boost::beast::error::timeout;
      }
      io_.run_one_for(kPoll);
    }
    return **outcome;
  }

  ErrorCode Connect(const Deadline& deadline) {
    const OtlpEndpoint& endpoint = options_.endpoint;
    connection_ = std::make_shared<Connection>(&io_, tls_.has_value() ? &*tls_ : nullptr);
    Connection& connection = *connection_;
    const auto found = std::make_shared<Tcp::resolver::results_type>();
    ErrorCode error = Await(deadline, [&](auto handler) {
      connection.resolver.async_resolve(
          endpoint.host, endpoint.port,
          [found, handler](ErrorCode failure, const Tcp::resolver::results_type& results) mutable {
            *found = results;
            handler(failure);
          });
    });
    if (error) return error;
    error = Await(deadline, [&](auto handler) {
      connection.stream.tcp().async_connect(*found, std::move(handler));
    });
    if (error || !endpoint.tls) return error;
    return Await(deadline, [&](auto handler) {
      connection.stream.HandshakeWith(endpoint.host, std::move(handler));
    });
  }

  ErrorCode Exchange(const std::string& body, const Deadline& deadline) {
    Connection& connection = *connection_;
    auto& request = connection.request;
    request = {http::verb::post, options_.endpoint.path, 11};
    request.set(http::field::host, options_.endpoint.authority());
    request.set(http::field::user_agent, absl::StrCat("quiver-server/", kServerVersion));
    for (const auto& [name, value] : options_.headers) request.set(name, value);
    request.set(http::field::content_type, "application/json");
    request.body() = body;
    request.prepare_payload();
    const ErrorCode error = Await(deadline, [&](auto handler) {
      http::async_write(connection.stream, request, std::move(handler));
    });
    if (error) return error;
    auto& parser = connection.parser.emplace();
    parser.body_limit(kMaxAnswerBytes);
    const ErrorCode headed = Await(deadline, [&](auto handler) {
      http::async_read_header(connection.stream, connection.buffer, parser, std::move(handler));
    });
    if (headed) return headed;
    // Piece by piece, as the library has been seen to read on past its limit.
    while (!parser.is_done()) {
      const ErrorCode read = Await(deadline, [&](auto handler) {
        http::async_read_some(connection.stream, connection.buffer, parser, std::move(handler));
      });
      if (read) return read;
      if (parser.get().body().size() > kMaxAnswerBytes) return http::error::body_limit;
    }
    return {};
  }

  const OtlpOptions options_;
  std::optional<asio::ssl::context> tls_;
  asio::io_context io_{1};
  // Null between connections.
  std::shared_ptr<Connection> connection_;
};

OtlpClient::OtlpClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
OtlpClient::~OtlpClient() = default;

absl::StatusOr<std::unique_ptr<OtlpClient>> OtlpClient::Create(OtlpOptions options) {
  try {
    return std::unique_ptr<OtlpClient>(new OtlpClient(std::make_unique<Impl>(std::move(options))));
  } catch (const std::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat("traces over TLS: ", e.what()));
  }
}

SpanSender::Result OtlpClient::Send(const std::string& body, const Deadline& deadline) {
  try {
    return impl_->Send(body, deadline);
  } catch (const std::exception& e) {
    return {.kind = Kind::kRefused, .error = e.what()};
  }
}

}  // namespace quiver
