#include "server/api_keys.h"

#include <algorithm>
#include <sstream>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "openssl/sha.h"
#include "server/hub/small_file.h"

namespace quiver {
namespace {

constexpr absl::string_view kScheme = "bearer ";

std::string Sha256(absl::string_view text) {
  std::string hash(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
         reinterpret_cast<unsigned char*>(hash.data()));
  return hash;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ApiKeys>> ApiKeys::Load(const std::string& path) {
  const absl::StatusOr<std::string> file = ReadSmallFile("--api-keys", path);
  if (!file.ok()) return file.status();
  std::istringstream lines(*file);
  auto keys = std::make_shared<ApiKeys>();
  std::string text;
  for (int number = 1; std::getline(lines, text); ++number) {
    const absl::string_view line = absl::StripAsciiWhitespace(text);
    if (line.empty() || line[0] == '#') continue;
    const absl::string_view hash = line.substr(0, line.find_first_of(" \t"));
    if (hash.size() != 2 * SHA256_DIGEST_LENGTH ||
        !std::all_of(hash.begin(), hash.end(), absl::ascii_isxdigit)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "API keys '", path, "', line ", number, ": must begin with the SHA-256 of a key, ",
          2 * SHA256_DIGEST_LENGTH, " hexadecimal digits"));
    }
    keys->hashes_.insert(absl::HexStringToBytes(hash));
  }
  if (keys->hashes_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("API keys '", path, "': there is no key"));
  }
  return keys;
}

absl::Status ApiKeys::Check(absl::string_view authorization) const {
  if (authorization.empty()) {
    return absl::UnauthenticatedError("an API key is required: Authorization: Bearer KEY");
  }
  if (!absl::StartsWithIgnoreCase(authorization, kScheme) ||
      !hashes_.contains(Sha256(absl::StripAsciiWhitespace(authorization.substr(kScheme.size()))))) {
    return absl::UnauthenticatedError("the API key is not known here");
  }
  return absl::OkStatus();
}

}  // namespace quiver
