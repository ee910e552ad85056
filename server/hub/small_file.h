// Files that operators name: keys, certificates, tokens. Here, on the lowest floor that reads them.
#ifndef QUIVER_SERVER_HUB_SMALL_FILE_H_
#define QUIVER_SERVER_HUB_SMALL_FILE_H_

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace quiver {

// All of a file, which may be a pipe. INVALID_ARGUMENT, beginning with `where`, such as a flag, if
// it cannot be read or is empty.
inline absl::StatusOr<std::string> ReadSmallFile(absl::string_view where, const std::string& path) {
  std::string text;
  std::error_code ignored;
  // A directory can be opened; to read it throws.
  if (!std::filesystem::is_directory(path, ignored)) {
    std::ifstream in(path, std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(in), {});
  }
  if (text.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, " '", path, "' cannot be read or is empty"));
  }
  return text;
}

}  // namespace quiver

#endif  // QUIVER_SERVER_HUB_SMALL_FILE_H_
