#include "server/otlp_options.h"

#include <algorithm>
#include <cstdlib>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/trace_context.h"
#include "server/version.h"

namespace quiver {
namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

constexpr char kTracesPath[] = "/v1/traces";
constexpr char kEndpointVariable[] = "OTEL_EXPORTER_OTLP_ENDPOINT";
constexpr char kHeadersVariable[] = "OTEL_EXPORTER_OTLP_HEADERS";
constexpr char kServiceVariable[] = "OTEL_SERVICE_NAME";
constexpr char kResourceVariable[] = "OTEL_RESOURCE_ATTRIBUTES";

constexpr char kServiceName[] = "service.name";

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Resolves %XX; nothing if an escape is none.
std::optional<std::string> Unescape(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size() || !absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 1])) ||
        !absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 2]))) {
      return {};
    }
    out += absl::HexStringToBytes(text.substr(i + 1, 2));
    i += 2;
  }
  return out;
}

bool HasControls(absl::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); });
}

// "key=value,key=value" with percent escapes in the values.
absl::StatusOr<Pairs> ReadPairs(const char* variable) {
  Pairs pairs;
  const std::string text = Environment(variable);
  int number = 0;
  for (absl::string_view entry : absl::StrSplit(text, ',')) {
    ++number;
    entry = absl::StripAsciiWhitespace(entry);
    if (entry.empty()) continue;
    const size_t equals = entry.find('=');
    const absl::string_view key = absl::StripAsciiWhitespace(entry.substr(0, equals));
    std::optional<std::string> value;
    if (equals != absl::string_view::npos) {
      value = Unescape(absl::StripAsciiWhitespace(entry.substr(equals + 1)));
    }
    if (key.empty() || HasControls(key) || !value.has_value() || HasControls(*value)) {
      return absl::InvalidArgumentError(
          absl::StrCat(variable, " must be a list key=value,key=value with %XX for special ",
                       "characters in values; its entry ", number, " is not such"));
    }
    pairs.emplace_back(key, *std::move(value));
  }
  return pairs;
}

bool IsToken(absl::string_view name) {
  return std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
           absl::StrContains("!#$%&'*+-.^_`|~", absl::string_view(&c, 1));
  });
}

void SetDefault(Pairs* pairs, const std::string& key, const std::string& value) {
  const auto has = [&](const auto& pair) { return pair.first == key; };
  if (std::none_of(pairs->begin(), pairs->end(), has)) pairs->emplace_back(key, value);
}

}  // namespace

std::string OtlpEndpoint::authority() const {
  const std::string name = absl::StrContains(host, ':') ? absl::StrCat("[", host, "]") : host;
  return port == (tls ? "443" : "80") ? name : absl::StrCat(name, ":", port);
}

std::optional<OtlpEndpoint> ParseOtlpEndpoint(absl::string_view url) {
  OtlpEndpoint endpoint;
  endpoint.tls = absl::ConsumePrefix(&url, "https://");
  if (!endpoint.tls && !absl::ConsumePrefix(&url, "http://")) return {};
  const size_t slash = url.find('/');
  absl::string_view authority = url.substr(0, slash);
  const absl::string_view path =
      slash == absl::string_view::npos ? "" : absl::StripSuffix(url.substr(slash), "/");
  // No user, query or fragment: secrets stand in headers.
  if (url.find_first_of("@?# ") != absl::string_view::npos || HasControls(url)) return {};
  if (absl::ConsumePrefix(&authority, "[")) {
    const size_t bracket = authority.find(']');
    if (bracket == absl::string_view::npos) return {};
    endpoint.host = std::string(authority.substr(0, bracket));
    authority.remove_prefix(bracket + 1);
  } else {
    endpoint.host = std::string(authority.substr(0, authority.find(':')));
    authority.remove_prefix(endpoint.host.size());
  }
  if (endpoint.host.empty()) return {};
  endpoint.port = endpoint.tls ? "443" : "80";
  if (absl::ConsumePrefix(&authority, ":")) {
    int port = 0;
    if (!absl::SimpleAtoi(authority, &port) || port < 1 || port > 65535) return {};
    endpoint.port = absl::StrCat(port);
  } else if (!authority.empty()) {
    return {};
  }
  endpoint.path = absl::StrCat(path, kTracesPath);
  return endpoint;
}

absl::StatusOr<std::optional<OtlpOptions>> ReadOtlpOptions(const std::string& endpoint) {
  const std::string url = endpoint.empty() ? Environment(kEndpointVariable) : endpoint;
  if (url.empty()) return std::nullopt;
  const std::optional<OtlpEndpoint> parsed = ParseOtlpEndpoint(url);
  if (!parsed.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(endpoint.empty() ? kEndpointVariable : "--otlp-endpoint", " must be ",
                     kOtlpEndpoints, ", not '", url, "'"));
  }
  OtlpOptions options;
  options.endpoint = *parsed;
  absl::StatusOr<Pairs> headers = ReadPairs(kHeadersVariable);
  if (!headers.ok()) return headers.status();
  for (const auto& [name, value] : *headers) {
    if (!IsToken(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(kHeadersVariable, ": '", name, "' is not a header's name"));
    }
  }
  options.headers = *std::move(headers);
  absl::StatusOr<Pairs> resource = ReadPairs(kResourceVariable);
  if (!resource.ok()) return resource.status();
  if (const std::string name = Environment(kServiceVariable); !name.empty()) {
    std::erase_if(*resource, [](const auto& pair) { return pair.first == kServiceName; });
    resource->emplace_back(kServiceName, name);
  }
  SetDefault(&*resource, kServiceName, "quiver-server");
  SetDefault(&*resource, "service.version", kServerVersion);
  SetDefault(&*resource, "service.instance.id", HexId(NewTraceId()));
  options.resource = *std::move(resource);
  return options;
}

}  // namespace quiver
