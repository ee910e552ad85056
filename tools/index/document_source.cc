#include "tools/index/document_source.h"

#include <sys/stat.h>

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "tools/index/document_readers.h"
#include "xxhash.h"

namespace quiver::index {
namespace {

namespace fs = std::filesystem;

// 0 if it has none.
uint64_t FileSize(const std::string& path) {
  std::error_code error;
  const uint64_t size = path == "-" ? 0 : fs::file_size(path, error);
  return error ? 0 : size;
}

bool IsDirectory(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

DocumentFormat DetectFormat(const std::string& path) {
  if (IsDirectory(path)) return DocumentFormat::kDirectory;
  absl::string_view name = path;
  if (!absl::ConsumeSuffix(&name, ".gz")) absl::ConsumeSuffix(&name, ".zst");
  if (absl::EndsWithIgnoreCase(name, ".csv")) return DocumentFormat::kCsv;
  if (absl::EndsWithIgnoreCase(name, ".tsv")) return DocumentFormat::kTsv;
  return DocumentFormat::kJsonl;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DocumentSource>> OpenDocuments(DocumentOptions options) {
  if (options.format == DocumentFormat::kDetect) options.format = DetectFormat(options.path);
  if (options.format == DocumentFormat::kDirectory) return DirectoryDocuments(std::move(options));
  if (IsDirectory(options.path)) {
    return absl::FailedPreconditionError(absl::StrCat(options.path, ": is a directory"));
  }
  absl::StatusOr<std::unique_ptr<ByteSource>> bytes = OpenBytes(options.path);
  if (!bytes.ok()) return bytes.status();
  const uint64_t size = FileSize(options.path);
  if (options.format == DocumentFormat::kJsonl) {
    return JsonlDocuments(std::move(options), *std::move(bytes), size);
  }
  const char separator = options.format == DocumentFormat::kTsv ? '\t' : ',';
  return CsvDocuments(std::move(options), separator, *std::move(bytes), size);
}

namespace {

// When the file was last written, "2026-01-31T12:00:00.5Z"; empty if it is not there.
std::string ChangeTime(const std::string& path) {
  struct stat state = {};
  if (stat(path.c_str(), &state) != 0) return "";
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E*SZ", absl::TimeFromTimespec(state.st_mtim),
                          absl::UTCTimeZone());
}

}  // namespace

absl::StatusOr<std::string> InputIdentity(const std::string& path) {
  if (path == "-") return "standard input";
  if (!IsDirectory(path)) {
    return absl::StrCat(path, ", ", FileSize(path), " bytes of ", ChangeTime(path));
  }
  const absl::StatusOr<std::vector<std::string>> files = FilesBelow(path);
  if (!files.ok()) return files.status();
  uint64_t digest = 0;
  for (const std::string& file : *files) {
    const std::string state = absl::StrCat(file, "\n", FileSize(file), "\n", ChangeTime(file));
    digest = XXH3_64bits_withSeed(state.data(), state.size(), digest);
  }
  return absl::StrCat(path, ", ", files->size(), " files, digest of their names, sizes and times ",
                      absl::Hex(digest, absl::kZeroPad16));
}

}  // namespace quiver::index
