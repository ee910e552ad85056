// What HTTP handlers take and give. Knows nothing of sockets.
#ifndef QUIVER_SERVER_HTTP_TYPES_H_
#define QUIVER_SERVER_HTTP_TYPES_H_

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "engine/schedule/embed_task.h"

namespace quiver {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  // HEAD comes as GET.
  std::string method;
  // Of the target, as sent (no escapes are resolved): the part before '?' and the part behind.
  std::string path;
  std::string query;
  HttpHeaders headers;
  std::string body;
  // Address and port of the client.
  std::string peer;
  // Set when the client goes away before it has its answer; a handler may set it for what it began.
  std::shared_ptr<CancellationFlag> cancellation;

  // The first value under `name`, whatever its case; empty if there is none.
  absl::string_view header(absl::string_view name) const {
    for (const auto& [known, value] : headers) {
      if (absl::EqualsIgnoreCase(known, name)) return value;
    }
    return {};
  }
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  // Beside Content-Type, Content-Length, Date and Connection. No line breaks in them.
  HttpHeaders headers = {};
};

// The statuses that the server answers with.
inline constexpr std::array kHttpStatuses = {200, 400, 401, 404, 405, 413, 415, 417, 422,
                                             424, 429, 431, 499, 500, 501, 503, 504, 505};

// A request that was answered before any handler saw it, for it was malformed, or there is no such
// path, method or key.
struct HttpRefusal {
  // Address and port of the client.
  absl::string_view peer = {};
  // As far as they could be read; as sent, without the query.
  absl::string_view method = {};
  absl::string_view path = {};
  int status = 0;
};

// An error in the form of OpenAI's API, {"error": {"message": ..., "type": ..., "param": ...,
// "code":
// ...}}. `param` is the field it speaks of, `code` a word for programs; null where empty.
HttpResponse HttpError(int status, absl::string_view message, absl::string_view param = "",
                       absl::string_view code = "");

// The way back for one answer. Move-only; may be used on any thread, during the handler or after.
class HttpResponder {
 public:
  using SendFunction = absl::AnyInvocable<void(HttpResponse)>;

  explicit HttpResponder(SendFunction send) : send_(std::move(send)) {}
  HttpResponder(HttpResponder&& other) noexcept : send_(std::exchange(other.send_, nullptr)) {}
  HttpResponder& operator=(HttpResponder&&) = delete;
  // A client whose request was forgotten gets 500.
  ~HttpResponder() {
    if (send_) send_(HttpError(500, "the request was dropped"));
  }

  // At most once.
  void Send(HttpResponse response) { std::exchange(send_, nullptr)(std::move(response)); }

 private:
  SendFunction send_;
};

// Called on one of the server's few threads: must not block.
using HttpHandler = std::function<void(HttpRequest, HttpResponder)>;

}  // namespace quiver

#endif  // QUIVER_SERVER_HTTP_TYPES_H_
