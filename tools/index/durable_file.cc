#include "tools/index/durable_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quiver::index {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<DurableFile>> DurableFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return absl::ErrnoToStatus(errno, path);
  struct stat about = {};
  if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) {
    close(fd);
    return absl::FailedPreconditionError(absl::StrCat(path, ": must be a regular file"));
  }
  return std::unique_ptr<DurableFile>(
      new DurableFile(path, fd, static_cast<uint64_t>(about.st_size)));
}

DurableFile::~DurableFile() { close(fd_); }

absl::Status DurableFile::Lock() {
  if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
  if (errno != EWOULDBLOCK) return absl::ErrnoToStatus(errno, path_);
  return absl::FailedPreconditionError(absl::StrCat(path_, ": another process writes this index"));
}

absl::StatusOr<std::string> DurableFile::ReadAll() const {
  std::string bytes(written_, '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count =
        pread(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::ErrnoToStatus(errno, path_);
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  bytes.resize(done);
  return bytes;
}

absl::Status DurableFile::Truncate(uint64_t size) {
  if (written_ < size) {
    return absl::DataLossError(absl::StrCat(path_, ": has ", written_, " bytes; the journal says ",
                                            size, "; --overwrite begins anew"));
  }
  buffer_.clear();
  if (ftruncate(fd_, static_cast<off_t>(size)) != 0) return absl::ErrnoToStatus(errno, path_);
  written_ = size;
  return absl::OkStatus();
}

absl::Status DurableFile::Append(absl::string_view bytes) {
  buffer_.append(bytes.data(), bytes.size());
  return buffer_.size() < kBufferBytes ? absl::OkStatus() : WriteBuffer();
}

absl::Status DurableFile::WriteBuffer() {
  if (absl::Status status = WriteAt(buffer_, written_); !status.ok()) return status;
  written_ += buffer_.size();
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status DurableFile::WriteAt(absl::string_view bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t count = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::ErrnoToStatus(errno, path_);
    bytes.remove_prefix(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return absl::OkStatus();
}

absl::Status DurableFile::Sync() {
  if (absl::Status status = WriteBuffer(); !status.ok()) return status;
  return fdatasync(fd_) == 0 ? absl::OkStatus() : absl::ErrnoToStatus(errno, path_);
}

absl::Status DurableFile::WriteAtStart(absl::string_view bytes) {
  if (absl::Status status = WriteAt(bytes, 0); !status.ok()) return status;
  return Sync();
}

absl::Status SyncFolderOf(const std::string& path) {
  const std::string folder = std::filesystem::absolute(path).parent_path().string();
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, folder);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  // Some file systems cannot, and need not.
  if (result == 0 || error == EINVAL) return absl::OkStatus();
  return absl::ErrnoToStatus(error, folder);
}

absl::Status ReplaceFile(const std::string& path, absl::string_view bytes) {
  const std::string staging = absl::StrCat(path, ".partial");
  {
    absl::StatusOr<std::unique_ptr<DurableFile>> file = DurableFile::Open(staging);
    if (!file.ok()) return file.status();
    absl::Status status = (*file)->Truncate(0);
    status.Update((*file)->Append(bytes));
    if (status.ok()) status = (*file)->Sync();
    if (!status.ok()) return status;
  }
  if (std::rename(staging.c_str(), path.c_str()) != 0) return absl::ErrnoToStatus(errno, path);
  return SyncFolderOf(path);
}

}  // namespace quiver::index
