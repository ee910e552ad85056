#include "server/http_session.h"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "boost/asio/dispatch.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/write.hpp"

namespace quiver {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using Tcp = asio::ip::tcp;

constexpr absl::Duration kLingerTime = absl::Seconds(2);
// Between two looks whether a client that has sent more than its request has gone.
constexpr std::chrono::milliseconds kWatchInterval(100);
// What an idle connection may keep of its buffer.
constexpr size_t kIdleBufferBytes = 4096;
// Read at once while a request is awaited; most requests fit.
constexpr size_t kFirstReadBytes = 2048;

constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";

absl::string_view View(beast::string_view text) { return {text.data(), text.size()}; }

// The target of a request, which may be absolute ("http://host/path?query"), cut in two.
void SplitTarget(absl::string_view target, std::string* path, std::string* query) {
  if (const size_t scheme = target.find("://");
      scheme != absl::string_view::npos && !absl::StartsWith(target, "/")) {
    const size_t begin = target.find('/', scheme + 3);
    target = begin == absl::string_view::npos ? "/" : target.substr(begin);
  }
  const size_t mark = target.find('?');
  *path = std::string(target.substr(0, mark));
  *query = mark == absl::string_view::npos ? "" : std::string(target.substr(mark + 1));
}

// Whether the first line of `text` has no carriage return at its end.
bool BeginsWithBareLineFeed(absl::string_view text) {
  const absl::string_view line = text.substr(0, text.find('\n'));
  return line.size() < text.size() && !absl::EndsWith(line, "\r");
}

std::string HttpDate(absl::Time time) {
  return absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", time, absl::UTCTimeZone());
}

}  // namespace

HttpSession::HttpSession(std::shared_ptr<HttpShared> shared, Tcp::socket socket)
    : shared_(std::move(shared)),
      stream_(std::move(socket), shared_->tls.get()),
      watch_timer_(stream_.get_executor()) {
  ErrorCode error;
  stream_.tcp().socket().set_option(Tcp::no_delay(true), error);
  const Tcp::endpoint peer = stream_.tcp().socket().remote_endpoint(error);
  if (!error) {
    const std::string address = peer.address().to_string();
    peer_ = peer.address().is_v6() ? absl::StrCat("[", address, "]:", peer.port())
                                   : absl::StrCat(address, ":", peer.port());
  }
}

void HttpSession::Start() { Begin(&HttpSession::AwaitRequest); }

void HttpSession::Refuse() { Begin(&HttpSession::SayTooMany); }

void HttpSession::Begin(void (HttpSession::*next)()) {
  {
    absl::MutexLock lock(&shared_->mutex);
    shared_->sessions.emplace(this, shared_from_this());
  }
  asio::dispatch(stream_.get_executor(), [self = shared_from_this(), next] {
    if (!self->stream_.is_tls()) return (*self.*next)();
    self->SetTimeout(self->shared_->options.read_timeout);
    self->stream_.Handshake([self, next](ErrorCode error) {
      if (error) return self->Close();
      (*self.*next)();
    });
  });
}

void HttpSession::SayTooMany() {
  Reject(
      HttpError(503, absl::StrCat("more than ", shared_->options.max_connections, " connections")));
}

void HttpSession::Drain() {
  asio::post(stream_.get_executor(), [self = shared_from_this()] {
    if (self->state_ == State::kIdle) self->Close();
  });
}

void HttpSession::Abort() {
  asio::post(stream_.get_executor(), [self = shared_from_this()] { self->Close(); });
}

void HttpSession::AwaitRequest() {
  if (state_ == State::kClosed) return;
  skipped_line_ = false;
  // Pipelined requests are already here.
  if (buffer_.size() > 0) return ReadHeader();
  if (shared_->draining) return Close();
  AwaitBytes();
}

void HttpSession::AwaitBytes() {
  state_ = State::kIdle;
  if (buffer_.capacity() > kIdleBufferBytes) buffer_ = beast::flat_buffer();
  SetTimeout(shared_->options.idle_timeout);
  stream_.async_read_some(buffer_.prepare(kFirstReadBytes),
                          [self = shared_from_this()](ErrorCode error, size_t bytes) {
                            if (error) return self->Close();
                            self->buffer_.commit(bytes);
                            self->ReadHeader();
                          });
}

void HttpSession::ReadHeader() {
  if (state_ == State::kClosed) return;
  // Old clients end a body with a line break that is not of it (RFC 9112, section 2.2).
  if (!skipped_line_ && absl::StartsWith(Received(), "\r\n")) {
    skipped_line_ = true;
    buffer_.consume(2);
    if (buffer_.size() == 0) return AwaitBytes();
  }
  state_ = State::kReading;
  head_ = false;
  parser_.emplace();
  parser_->header_limit(shared_->options.max_header_bytes);
  // The route knows the limit; CheckHeader sets it.
  parser_->body_limit(std::numeric_limits<uint64_t>::max());
  SetTimeout(shared_->options.read_timeout);
  http::async_read_header(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](ErrorCode error, size_t) { self->OnHeader(error); });
}

void HttpSession::OnHeader(ErrorCode error) {
  if (state_ == State::kClosed) return;
  if (error) return OnReadError(error);
  head_ = parser_->get().method() == http::verb::head;
  keep_alive_ = parser_->keep_alive();
  if (std::optional<HttpResponse> answer = CheckHeader()) {
    // Without a body the next request's place is known, so the connection may live on. Of the other
    // 4xx some say that it is not.
    if (parser_->is_done() &&
        (answer->status == 401 || answer->status == 404 || answer->status == 405)) {
      TellRefusal(answer->status);
      return Respond(*std::move(answer));
    }
    return Reject(*std::move(answer));
  }
  if (parser_->is_done()) return Dispatch();
  if (parser_->get().version() >= 11 && parser_->get().count(http::field::expect) > 0) {
    return SendContinue();
  }
  ReadBody();
}

std::optional<HttpResponse> HttpSession::CheckHeader() {
  const auto& request = parser_->get();
  const bool is_http11 = request.version() >= 11;
  if (is_http11 && request.count(http::field::host) != 1) {
    return HttpError(400, "exactly one Host header is required");
  }
  if (const auto codings = request.count(http::field::transfer_encoding); codings > 0) {
    if (request.count(http::field::content_length) > 0) {
      return HttpError(400, "Transfer-Encoding and Content-Length exclude each other");
    }
    if (!is_http11 || codings != 1 ||
        !absl::EqualsIgnoreCase(View(request[http::field::transfer_encoding]), "chunked")) {
      return HttpError(501, "the only Transfer-Encoding supported is chunked");
    }
  }
  const absl::string_view expect = View(request[http::field::expect]);
  if (is_http11 && !expect.empty() && !absl::EqualsIgnoreCase(expect, "100-continue")) {
    return HttpError(417, "the only Expect supported is 100-continue");
  }

  SplitTarget(View(request.target()), &path_, &query_);
  HttpRouter::Match match = shared_->router.Find(View(request.method_string()), path_);
  if (match.route == nullptr && match.allow.empty()) return HttpError(404, "no such path");
  if (match.route == nullptr) {
    HttpResponse response = HttpError(405, absl::StrCat("allowed methods: ", match.allow));
    response.headers.emplace_back("Allow", std::move(match.allow));
    return response;
  }
  route_ = match.route;
  if (route_->needs_key && shared_->options.api_keys != nullptr) {
    const absl::Status status =
        shared_->options.api_keys->Check(View(request[http::field::authorization]));
    if (!status.ok()) {
      HttpResponse response = HttpError(401, status.message(), "", "invalid_api_key");
      response.headers.emplace_back("WWW-Authenticate", "Bearer");
      return response;
    }
  }
  const auto max_body_bytes = static_cast<uint64_t>(route_->max_body_bytes);
  if (parser_->content_length().value_or(0) > max_body_bytes) {
    return HttpError(413, absl::StrCat("the body has ", *parser_->content_length(),
                                       " bytes; at most ", max_body_bytes, " are allowed"));
  }
  parser_->body_limit(max_body_bytes);
  return std::nullopt;
}

void HttpSession::SendContinue() {
  asio::async_write(stream_, asio::buffer(kContinue, sizeof(kContinue) - 1),
                    [self = shared_from_this()](ErrorCode error, size_t) {
                      if (error) return self->Close();
                      self->ReadBody();
                    });
}

void HttpSession::ReadBody() {
  if (state_ == State::kClosed) return;
  SetTimeoutFor(static_cast<int64_t>(
      parser_->content_length().value_or(static_cast<uint64_t>(route_->max_body_bytes))));
  http::async_read(stream_, buffer_, *parser_,
                   [self = shared_from_this()](ErrorCode error, size_t) { self->OnBody(error); });
}

void HttpSession::OnBody(ErrorCode error) {
  if (state_ == State::kClosed) return;
  if (error) return OnReadError(error);
  Dispatch();
}

void HttpSession::Dispatch() {
  state_ = State::kHandling;
  stream_.tcp().expires_never();
  http::request<http::string_body> message = parser_->release();
  HttpRequest request;
  request.method = head_ ? "GET" : std::string(View(message.method_string()));
  request.path = std::move(path_);
  request.query = std::move(query_);
  for (const auto& field : message) {
    request.headers.emplace_back(View(field.name_string()), View(field.value()));
  }
  request.body = std::move(message.body());
  request.peer = peer_;
  cancellation_ = std::make_shared<CancellationFlag>();
  request.cancellation = cancellation_;

  // An answer may come on any thread, and after the connection or the server is gone.
  HttpResponder responder([weak = weak_from_this()](HttpResponse response) {
    const std::shared_ptr<HttpSession> session = weak.lock();
    if (session == nullptr) return;
    asio::dispatch(session->stream_.get_executor(),
                   [weak, response = std::move(response)]() mutable {
                     if (const auto self = weak.lock()) self->Respond(std::move(response));
                   });
  });
  route_->handler(std::move(request), std::move(responder));
  if (state_ == State::kHandling) WatchClient();
}

void HttpSession::WatchClient() {
  if (watching_) return;
  watching_ = true;
  const auto look = [self = shared_from_this()](ErrorCode error) {
    self->watching_ = false;
    if (error || self->state_ != State::kHandling) return;
    if (self->ClientHasGone()) return self->cancellation_->Cancel();
    // There is data, which waits in the kernel: the next request, or TLS's goodbye. More of it
    // wakes nobody, so the end behind it has to be looked for.
    self->watching_ = true;
    self->watch_timer_.expires_after(kWatchInterval);
    self->watch_timer_.async_wait([self](ErrorCode) {
      self->watching_ = false;
      if (self->state_ == State::kHandling) self->WatchClient();
    });
  };
  stream_.tcp().socket().async_wait(Tcp::socket::wait_read, look);
}

bool HttpSession::ClientHasGone() {
  pollfd connection = {stream_.tcp().socket().native_handle(), POLLRDHUP, 0};
  return poll(&connection, 1, 0) > 0;
}

void HttpSession::OnReadError(ErrorCode error) {
  // Beast closes a connection whose time is over; one that ended by itself needs no answer either.
  const bool is_malformed =
      error.category() == http::make_error_code(http::error::bad_method).category() &&
      error != http::error::end_of_stream && error != http::error::partial_message;
  if (!is_malformed) return Close();
  if (error == http::error::header_limit) {
    return Reject(HttpError(431, absl::StrCat("the request's header is longer than ",
                                              shared_->options.max_header_bytes, " bytes")));
  }
  if (error == http::error::body_limit) {
    return Reject(
        HttpError(413, absl::StrCat("the body is longer than ", route_->max_body_bytes, " bytes")));
  }
  // A version that a bare line feed follows is none to the parser.
  if (error == http::error::bad_version && !BeginsWithBareLineFeed(Received())) {
    return Reject(HttpError(505, "HTTP/1.1 and HTTP/1.0 are supported"));
  }
  Reject(HttpError(400, absl::StrCat("malformed request: ", error.message())));
}

void HttpSession::TellRefusal(int status) {
  if (shared_->options.on_refusal == nullptr) return;
  HttpRefusal refusal = {.peer = peer_, .status = status};
  std::string path;
  if (parser_ && parser_->is_header_done()) {
    std::string query;
    SplitTarget(View(parser_->get().target()), &path, &query);
    refusal.method = View(parser_->get().method_string());
    refusal.path = path;
  }
  shared_->options.on_refusal(refusal);
}

void HttpSession::CountResponse(int status) {
  const auto* known = std::find(kHttpStatuses.begin(), kHttpStatuses.end(), status);
  if (known != kHttpStatuses.end()) ++shared_->responses[known - kHttpStatuses.begin()];
}

void HttpSession::Reject(HttpResponse response) {
  TellRefusal(response.status);
  keep_alive_ = false;
  unread_ = true;
  Respond(std::move(response));
}

void HttpSession::Respond(HttpResponse response) {
  if (state_ == State::kClosed) return;
  state_ = State::kWriting;
  if (shared_->draining) keep_alive_ = false;
  CountResponse(response.status);
  const unsigned version =
      parser_ && parser_->is_header_done() && parser_->get().version() == 10 ? 10 : 11;
  response_.emplace(static_cast<http::status>(response.status), version);
  response_->set(http::field::date, HttpDate(absl::Now()));
  response_->set(http::field::content_type, response.content_type);
  for (const auto& [name, value] : response.headers) response_->insert(name, value);
  response_->content_length(response.body.size());
  response_->keep_alive(keep_alive_);
  if (!head_) response_->body() = std::move(response.body);
  SetTimeoutFor(static_cast<int64_t>(response_->body().size()));
  http::async_write(stream_, *response_, [self = shared_from_this()](ErrorCode error, size_t) {
    self->OnWritten(error);
  });
}

void HttpSession::OnWritten(ErrorCode error) {
  if (state_ == State::kClosed) return;
  response_.reset();
  parser_.reset();
  if (error) return Close();
  if (keep_alive_) return AwaitRequest();
  if (!unread_) return SayGoodbye();
  stream_.tcp().socket().shutdown(Tcp::socket::shutdown_send, error);
  SetTimeout(kLingerTime);
  Linger();
}

void HttpSession::SayGoodbye() {
  if (!stream_.is_tls()) return Close();
  SetTimeout(kLingerTime);
  stream_.Shutdown([self = shared_from_this()](ErrorCode) { self->Close(); });
}

void HttpSession::Linger() {
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(kIdleBufferBytes),
                          [self = shared_from_this()](ErrorCode error, size_t) {
                            if (error || self->state_ == State::kClosed) return self->Close();
                            self->Linger();
                          });
}

void HttpSession::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  if (cancellation_ != nullptr) cancellation_->Cancel();
  watch_timer_.cancel();
  // Says a proper goodbye; closing alone would do so only if nobody else held the descriptor.
  ErrorCode ignored;
  stream_.tcp().socket().shutdown(Tcp::socket::shutdown_both, ignored);
  stream_.tcp().close();
  absl::MutexLock lock(&shared_->mutex);
  shared_->sessions.erase(this);
}

void HttpSession::SetTimeout(absl::Duration timeout) {
  stream_.tcp().expires_after(absl::ToChronoNanoseconds(timeout));
}

void HttpSession::SetTimeoutFor(int64_t bytes) {
  SetTimeout(shared_->options.read_timeout +
             absl::Seconds(static_cast<double>(bytes) / HttpServer::kMinBytesPerSecond));
}

}  // namespace quiver
