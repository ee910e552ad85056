#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "engine/text/tokenizer.h"
#include "tools/index/document_readers.h"

namespace quiver::index {
namespace {

class Directory : public DocumentSource {
 public:
  Directory(DocumentOptions options, std::vector<std::string> files)
      : options_(std::move(options)), files_(std::move(files)) {}

  bool Next(Document* document) override {
    const size_t number = next_;
    if (!Skip()) return false;
    document->place = files_[number];
    document->id = files_[number];
    document->text = Read(files_[number]);
    return true;
  }

  bool Skip() override {
    if (interrupted_ || next_ == files_.size()) return false;
    ++next_;
    return true;
  }

  void Interrupt() override { interrupted_ = true; }
  absl::Status status() const override { return absl::OkStatus(); }
  double progress() const override {
    return files_.empty() ? 1 : static_cast<double>(next_) / static_cast<double>(files_.size());
  }

 private:
  absl::StatusOr<std::string> Read(const std::string& file) const {
    if (const int64_t offset = FindInvalidUtf8(file); offset >= 0) {
      return FieldError("path", absl::StrCat("invalid UTF-8 at byte ", offset));
    }
    const std::filesystem::path path = std::filesystem::path(options_.path) / file;
    std::error_code error;
    const uint64_t size = std::filesystem::file_size(path, error);
    if (!error && size > kMaxRecordBytes) {
      return FieldError(
          "file", absl::StrCat("has ", size, " bytes; at most ", kMaxRecordBytes, " are read"));
    }
    std::ifstream in(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), {}};
    if (!in) return FieldError("file", "cannot be read");
    if (const int64_t offset = FindInvalidUtf8(text); offset >= 0) {
      return FieldError("text", absl::StrCat("invalid UTF-8 at byte ", offset));
    }
    return options_.text.Render(
        [&](const std::string& field) -> absl::StatusOr<std::optional<std::string>> {
          if (field == "text") return text;
          if (field == "path") return file;
          return std::nullopt;
        });
  }

  const DocumentOptions options_;
  const std::vector<std::string> files_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> interrupted_{false};
};

}  // namespace

absl::StatusOr<std::vector<std::string>> FilesBelow(const std::string& path) {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  std::error_code error;
  for (fs::recursive_directory_iterator entry(path, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->is_regular_file(error)) {
      files.push_back(entry->path().lexically_relative(path).string());
    }
  }
  if (error) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": ", error.message()));
  }
  std::sort(files.begin(), files.end());
  return files;
}

absl::StatusOr<std::unique_ptr<DocumentSource>> DirectoryDocuments(DocumentOptions options) {
  absl::StatusOr<std::vector<std::string>> files = FilesBelow(options.path);
  if (!files.ok()) return files.status();
  return std::make_unique<Directory>(std::move(options), *std::move(files));
}

}  // namespace quiver::index
