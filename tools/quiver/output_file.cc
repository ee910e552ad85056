#include "tools/quiver/output_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quiver {

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Open(const std::string& path, Mode mode) {
  std::string name = path == "-" ? "standard output" : path;
  std::string staging;
  if (mode == Mode::kWhole) {
    struct stat about;
    if (path == "-" || (stat(path.c_str(), &about) == 0 && !S_ISREG(about.st_mode))) {
      return absl::FailedPreconditionError(absl::StrCat(name, ": must be a regular file"));
    }
    staging = absl::StrCat(path, ".partial-", getpid());
  }
  std::FILE* file =
      path == "-" ? stdout : std::fopen((staging.empty() ? path : staging).c_str(), "wbe");
  if (file == nullptr) return absl::ErrnoToStatus(errno, path);
  return std::unique_ptr<OutputFile>(new OutputFile(std::move(name), std::move(staging), file));
}

OutputFile::~OutputFile() {
  if (file_ != nullptr && file_ != stdout) std::fclose(file_);
  if (!staging_.empty()) unlink(staging_.c_str());
}

absl::Status OutputFile::Error() const {
  if (errno == EPIPE) return absl::CancelledError(absl::StrCat(path_, ": nobody reads it"));
  return absl::ErrnoToStatus(errno, path_);
}

absl::Status OutputFile::Write(absl::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) return Error();
  return absl::OkStatus();
}

absl::Status OutputFile::Flush() { return std::fflush(file_) == 0 ? absl::OkStatus() : Error(); }

absl::Status OutputFile::WriteAtStart(absl::string_view bytes) {
  if (std::fseek(file_, 0, SEEK_SET) != 0) return Error();
  return Write(bytes);
}

absl::Status OutputFile::Close() {
  if (absl::Status status = Flush(); !status.ok()) return status;
  if (file_ == stdout) return absl::OkStatus();
  const int closed = std::fclose(std::exchange(file_, nullptr));
  if (closed != 0) return Error();
  if (!staging_.empty() && std::rename(staging_.c_str(), path_.c_str()) != 0) return Error();
  staging_.clear();
  return absl::OkStatus();
}

}  // namespace quiver
