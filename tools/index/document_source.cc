#include "tools/index/document_source.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
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

absl::StatusOr<std::string> InputIdentity(const std::string& path) {
  if (path == "-") return "standard input";
  if (!IsDirectory(path)) return absl::StrCat(path, ", ", FileSize(path), " bytes");
  const absl::StatusOr<std::vector<std::string>> files = FilesBelow(path);
  if (!files.ok()) return files.status();
  uint64_t digest = 0;
  for (const std::string& file : *files)
    digest = XXH3_64bits_withSeed(file.c_str(), file.size() + 1, digest);
  return absl::StrCat(path, ", ", files->size(), " files, names' digest ",
                      absl::Hex(digest, absl::kZeroPad16));
}

}  // namespace quiver::index
