#ifndef QUIVER_SERVER_HUB_HUB_HTTP_H_
#define QUIVER_SERVER_HUB_HUB_HTTP_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/hub/hub_options.h"

namespace quiver {

struct HubReply {
  int code = 0;
  // By name in lower case; of the last response if there were redirects.
  std::map<std::string, std::string> headers;
  // At most kMaxBodyBytes.
  std::string body;

  // Empty if there is none.
  std::string Header(const std::string& name) const;
};

// Requests to a hub, over HTTP or HTTPS, with the token; proxies as the usual variables say. A
// redirect to another host is followed without the token. Thread-safe.
//
// Errors are of the connection: UNAVAILABLE, worth another try, INVALID_ARGUMENT for what no try
// mends, such as a certificate that is not trusted, or FAILED_PRECONDITION for redirects without
// end. A response is none, whatever its code.
class HubHttp {
 public:
  static constexpr int64_t kMaxBodyBytes = int64_t{64} << 20;

  explicit HubHttp(const HubOptions& options);

  absl::StatusOr<HubReply> Get(const std::string& url) const;
  // Follows redirects within the host alone: what it says of a file it says before it sends one
  // to where the file is.
  absl::StatusOr<HubReply> Head(const std::string& url) const;

  // Gives the bytes of a 200 or 206 to `sink` as they come, from `offset` on if the server can: 206
  // then. An error of the sink ends the request and is returned.
  using Sink = std::function<absl::Status(int code, absl::string_view bytes)>;
  absl::StatusOr<HubReply> Download(const std::string& url, int64_t offset, const Sink& sink) const;

 private:
  const HubOptions options_;
};

// What a response with a code that is none of success means for `what`, such as "model A/B":
// UNAUTHENTICATED, PERMISSION_DENIED, NOT_FOUND, and UNAVAILABLE for those worth another try.
absl::Status HubError(const HubOptions& options, const HubReply& reply, absl::string_view what);

// Calls `attempt` until it returns anything but UNAVAILABLE, or has returned that `options.tries`
// times in a row without having got any further; waits longer and longer between, or as long as
// the hub asked for. `attempt` sets *wait_seconds to that, and *progressed.
absl::Status Retry(
    const HubOptions& options,
    const std::function<absl::Status(double* wait_seconds, bool* progressed)>& attempt);

// Of a response's Retry-After in seconds; 0 if there is none.
double RetryAfterSeconds(const HubReply& reply);

}  // namespace quiver

#endif  // QUIVER_SERVER_HUB_HUB_HTTP_H_
