// HTTP spoken byte by byte over a socket, so that a test can say what no library would.
#ifndef QUIVER_TESTS_SERVER_RAW_HTTP_CLIENT_H_
#define QUIVER_TESTS_SERVER_RAW_HTTP_CLIENT_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace quiver {

class RawHttpClient {
 public:
  struct Response {
    // 0 if the connection ended first.
    int status = 0;
    // Status line and headers.
    std::string head;
    std::string body;

    bool Has(absl::string_view line) const {
      return head.find(absl::StrCat("\r\n", line, "\r\n")) != std::string::npos;
    }
  };

  // Connects to 127.0.0.1. Reading gives up after `timeout`.
  explicit RawHttpClient(int port, absl::Duration timeout = absl::Seconds(20)) {
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval limit = absl::ToTimeval(timeout);
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  ~RawHttpClient() { Close(); }
  RawHttpClient(RawHttpClient&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)),
        connected_(other.connected_),
        buffer_(std::move(other.buffer_)) {}

  bool connected() const { return connected_; }

  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

  // False if the server has closed.
  bool Send(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // The next response; `head` for one to a HEAD request, which has no body.
  Response Read(bool head = false) {
    Response response;
    size_t end;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (!Fill()) return response;
    }
    response.head = buffer_.substr(0, end + 2);
    buffer_.erase(0, end + 4);
    response.status = std::atoi(response.head.c_str() + sizeof("HTTP/1.1"));
    size_t length = 0;
    constexpr absl::string_view kLength = "\r\nContent-Length: ";
    if (const size_t at = absl::string_view(response.head).find(kLength);
        at != std::string::npos && !head) {
      length = std::strtoul(response.head.c_str() + at + kLength.size(), nullptr, 10);
    }
    while (buffer_.size() < length) {
      if (!Fill()) return Response();
    }
    response.body = buffer_.substr(0, length);
    buffer_.erase(0, length);
    return response;
  }

  Response Ask(absl::string_view request) {
    Send(request);
    return Read();
  }
  Response Get(absl::string_view path) {
    return Ask(absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\n\r\n"));
  }

  // Whether the server ends the connection, without another byte, before the timeout.
  bool ReadsEnd() {
    char byte;
    return buffer_.empty() && recv(fd_, &byte, 1, 0) == 0;
  }

 private:
  bool Fill() {
    char bytes[4096];
    const ssize_t got = recv(fd_, bytes, sizeof(bytes), 0);
    if (got <= 0) return false;
    buffer_.append(bytes, static_cast<size_t>(got));
    return true;
  }

  int fd_ = -1;
  bool connected_ = false;
  std::string buffer_;
};

}  // namespace quiver

#endif  // QUIVER_TESTS_SERVER_RAW_HTTP_CLIENT_H_
