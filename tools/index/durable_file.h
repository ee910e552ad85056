#ifndef QUIVER_TOOLS_INDEX_DURABLE_FILE_H_
#define QUIVER_TOOLS_INDEX_DURABLE_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quiver::index {

// A file that is appended to, and whose bytes are known to be on the disk after Sync. Errors name
// the path. Not thread-safe.
class DurableFile {
 public:
  // Makes the file if it is not there.
  static absl::StatusOr<std::unique_ptr<DurableFile>> Open(const std::string& path);
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  // For this process alone. FAILED_PRECONDITION if another one has it.
  absl::Status Lock();

  absl::StatusOr<std::string> ReadAll() const;
  // Bytes, those included that were appended and not written yet.
  uint64_t size() const { return written_ + buffer_.size(); }

  // Cuts off what is behind `size`. DATA_LOSS if the file is shorter.
  absl::Status Truncate(uint64_t size);
  absl::Status Append(absl::string_view bytes);
  absl::Status Sync();
  // Overwrites the beginning of what was synced.
  absl::Status WriteAtStart(absl::string_view bytes);

 private:
  DurableFile(std::string path, int fd, uint64_t size)
      : path_(std::move(path)), fd_(fd), written_(size) {}

  absl::Status WriteBuffer();
  absl::Status WriteAt(absl::string_view bytes, uint64_t offset);

  const std::string path_;
  const int fd_;
  uint64_t written_;
  std::string buffer_;
};

// Makes names that were made or removed in the folder of `path` durable.
absl::Status SyncFolderOf(const std::string& path);

// Replaces the file at `path` by one that holds `bytes`, at once and durably.
absl::Status ReplaceFile(const std::string& path, absl::string_view bytes);

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_DURABLE_FILE_H_
