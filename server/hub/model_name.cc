#include "server/hub/model_name.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace quiver {
namespace {

// The hub's own limits.
constexpr size_t kMaxPartBytes = 96;
constexpr size_t kMaxRevisionBytes = 255;

bool IsNameByte(char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.'; }

// "--" separates the parts in the cache's folders.
bool IsPart(absl::string_view part) {
  const auto at_edge = [](char c) { return absl::ascii_isalnum(c) || c == '_'; };
  return !part.empty() && part.size() <= kMaxPartBytes &&
         std::all_of(part.begin(), part.end(), IsNameByte) && at_edge(part.front()) &&
         at_edge(part.back()) && !absl::StrContains(part, "--") && !absl::StrContains(part, "..");
}

}  // namespace

absl::StatusOr<ModelName> ParseModelName(absl::string_view text) {
  ModelName name;
  absl::string_view repo = text;
  if (const size_t at = text.find('@'); at != absl::string_view::npos) {
    repo = text.substr(0, at);
    name.revision = std::string(text.substr(at + 1));
    if (absl::Status status = CheckRevision(name.revision); !status.ok()) return status;
  }
  const std::vector<absl::string_view> parts = absl::StrSplit(repo, '/');
  if (parts.size() != 2 || !IsPart(parts[0]) || !IsPart(parts[1])) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a model's name must be ORGANIZATION/NAME or ORGANIZATION/NAME@REVISION, each part up to ",
        kMaxPartBytes, " letters, digits, '-', '_' or '.', not '", absl::Utf8SafeCEscape(text),
        "'"));
  }
  name.repo = std::string(repo);
  return name;
}

absl::Status CheckRevision(absl::string_view revision) {
  bool right = !revision.empty() && revision.size() <= kMaxRevisionBytes;
  for (const absl::string_view part : absl::StrSplit(revision, '/')) {
    right &=
        !part.empty() && part.front() != '.' && part.front() != '-' &&
        std::all_of(part.begin(), part.end(), [](char c) { return IsNameByte(c) || c == '+'; }) &&
        !absl::StrContains(part, "..");
  }
  if (right) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "a revision must be a branch, a tag or a commit of up to ", kMaxRevisionBytes,
      " letters, digits, '-', '_', '.', '+' or '/', not '", absl::Utf8SafeCEscape(revision), "'"));
}

bool IsCommit(absl::string_view text) {
  return text.size() == 40 && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

}  // namespace quiver
