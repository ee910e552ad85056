// Where traces go and under which names, from flags and from the environment variables that
// OpenTelemetry defines.
#ifndef QUIVER_SERVER_OTLP_OPTIONS_H_
#define QUIVER_SERVER_OTLP_OPTIONS_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quiver {

// A collector's URL for traces, taken apart.
struct OtlpEndpoint {
  bool tls = false;
  // A name or an IP address, without brackets.
  std::string host;
  std::string port;
  std::string path;

  // As in the Host header: with brackets and, unless it is the scheme's, the port.
  std::string authority() const;
};

// From the base of the collector's URLs, "http://HOST[:PORT][/PATH]" or https://, to which
// "/v1/traces" is added. Nothing if it is none.
inline constexpr char kOtlpEndpoints[] = "http://HOST:PORT or https://HOST:PORT";
std::optional<OtlpEndpoint> ParseOtlpEndpoint(absl::string_view url);

struct OtlpOptions {
  OtlpEndpoint endpoint;
  // To be sent with each request.
  std::vector<std::pair<std::string, std::string>> headers;
  // Of this process: service.name, service.version, service.instance.id and what else is set.
  std::vector<std::pair<std::string, std::string>> resource;
};

// `endpoint` may be empty; then OTEL_EXPORTER_OTLP_ENDPOINT says it, and if that is empty too there
// are no options. Reads OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
// as well. INVALID_ARGUMENT names the variable; the headers' values, which may be keys, are in no
// message.
absl::StatusOr<std::optional<OtlpOptions>> ReadOtlpOptions(const std::string& endpoint);

}  // namespace quiver

#endif  // QUIVER_SERVER_OTLP_OPTIONS_H_
