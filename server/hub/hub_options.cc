#include "server/hub/hub_options.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/hub/small_file.h"

namespace quiver {
namespace {

// Where distributions keep the authorities that they trust.
constexpr const char* kSystemAuthorities[] = {
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
};

// The first of `names` that is set and not empty, else "".
std::string Variable(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (const char* value = std::getenv(name); value != nullptr && *value != '\0') return value;
  }
  return "";
}

// ~ as a shell takes it.
std::string ExpandHome(std::string path) {
  if (path == "~" || absl::StartsWith(path, "~/")) path.replace(0, 1, Variable({"HOME"}));
  return path;
}

bool IsTrue(absl::string_view value) {
  const std::string upper = absl::AsciiStrToUpper(value);
  return upper == "1" || upper == "ON" || upper == "YES" || upper == "TRUE";
}

// What fits a line of a header.
absl::StatusOr<std::string> CheckToken(absl::string_view where, absl::string_view token) {
  token = absl::StripAsciiWhitespace(token);
  if (!std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c <= '~'; })) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": a token must be printable ASCII without spaces"));
  }
  return std::string(token);
}

std::string Authorities() {
  std::string file = Variable({"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"});
  if (!file.empty()) return file;
  std::error_code ignored;
  for (const char* path : kSystemAuthorities) {
    if (std::filesystem::exists(path, ignored)) return path;
  }
  return "";
}

}  // namespace

absl::StatusOr<std::string> CheckEndpoint(absl::string_view where, absl::string_view endpoint) {
  absl::string_view host = endpoint;
  const bool known =
      absl::ConsumePrefix(&host, "https://") || absl::ConsumePrefix(&host, "http://");
  if (!known || host.empty() || host.front() == '/' ||
      !std::all_of(host.begin(), host.end(), [](char c) { return c > ' ' && c <= '~'; }) ||
      absl::StrContains(host, "?") || absl::StrContains(host, "#")) {
    return absl::InvalidArgumentError(absl::StrCat(where,
                                                   " must be https://HOST or http://HOST, not '",
                                                   absl::Utf8SafeCEscape(endpoint), "'"));
  }
  while (absl::ConsumeSuffix(&endpoint, "/")) {
  }
  return std::string(endpoint);
}

absl::StatusOr<std::string> ReadTokenFile(absl::string_view where, const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSmallFile(where, path);
  if (!text.ok()) return text.status();
  return CheckToken(absl::StrCat(where, " '", path, "'"), *text);
}

absl::StatusOr<HubOptions> HubOptionsFromEnvironment() {
  HubOptions options;
  if (const std::string endpoint = Variable({"HF_ENDPOINT"}); !endpoint.empty()) {
    absl::StatusOr<std::string> checked = CheckEndpoint("HF_ENDPOINT", endpoint);
    if (!checked.ok()) return checked.status();
    options.endpoint = *std::move(checked);
  }

  std::string home = ExpandHome(Variable({"HF_HOME"}));
  if (home.empty()) {
    const std::string caches = Variable({"XDG_CACHE_HOME"});
    home = ExpandHome(caches.empty() ? "~/.cache" : caches) + "/huggingface";
  }
  options.cache_dir = ExpandHome(Variable({"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}));
  if (options.cache_dir.empty()) options.cache_dir = home + "/hub";

  absl::StatusOr<std::string> token;
  if (const std::string value = Variable({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}); !value.empty()) {
    token = CheckToken("HF_TOKEN", value);
  } else {
    std::string file = ExpandHome(Variable({"HF_TOKEN_PATH"}));
    if (file.empty()) file = home + "/token";
    std::error_code ignored;
    if (std::filesystem::exists(file, ignored)) {
      token = ReadTokenFile("the token's file", file);
    } else {
      token = "";
    }
  }
  if (!token.ok()) return token.status();
  options.token = *std::move(token);

  options.ca_file = Authorities();
  options.offline = IsTrue(Variable({"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"}));
  return options;
}

}  // namespace quiver
