#include "tools/index/byte_source.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "tools/index/decompression.h"

namespace quiver::index {
namespace {

constexpr absl::string_view kGzipMagic("\x1f\x8b", 2);
constexpr absl::string_view kZstdMagic("\x28\xb5\x2f\xfd", 4);

// A file descriptor, with its first bytes read ahead.
class FileBytes : public ByteSource {
 public:
  FileBytes(int fd, std::string name)
      : fd_(fd), interrupt_(eventfd(0, EFD_CLOEXEC)), name_(std::move(name)) {}
  ~FileBytes() override {
    close(interrupt_);
    if (fd_ != STDIN_FILENO) close(fd_);
  }

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    if (!head_.empty()) {
      const size_t count = std::min(size, head_.size());
      std::memcpy(buffer, head_.data(), count);
      head_.erase(0, count);
      return count;
    }
    return ReadFile(buffer, size);
  }

  void Interrupt() override {
    const uint64_t one = 1;
    // Fails only if it was interrupted often before.
    [[maybe_unused]] const ssize_t written = write(interrupt_, &one, sizeof(one));
  }

  uint64_t position() const override { return position_.load(std::memory_order_relaxed); }

  // The first bytes, as many as a magic number has if there are so many.
  absl::StatusOr<absl::string_view> Head() {
    while (head_.size() < kZstdMagic.size()) {
      char bytes[kZstdMagic.size()];
      const absl::StatusOr<size_t> count = ReadFile(bytes, kZstdMagic.size() - head_.size());
      if (!count.ok()) return count.status();
      if (*count == 0) break;
      head_.append(bytes, *count);
    }
    return absl::string_view(head_);
  }

 private:
  absl::StatusOr<size_t> ReadFile(char* buffer, size_t size) {
    for (;;) {
      pollfd ready[2] = {{.fd = fd_, .events = POLLIN, .revents = 0},
                         {.fd = interrupt_, .events = POLLIN, .revents = 0}};
      if (poll(ready, 2, -1) < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, name_);
      if (ready[1].revents != 0) return absl::CancelledError("interrupted");
      if (ready[0].revents == 0) continue;
      const ssize_t count = read(fd_, buffer, size);
      if (count >= 0) {
        position_.fetch_add(static_cast<uint64_t>(count), std::memory_order_relaxed);
        return static_cast<size_t>(count);
      }
      if (errno != EINTR && errno != EAGAIN) return absl::ErrnoToStatus(errno, name_);
    }
  }

  const int fd_;
  const int interrupt_;
  const std::string name_;
  std::string head_;
  std::atomic<uint64_t> position_{0};
};

}  // namespace

absl::StatusOr<std::unique_ptr<ByteSource>> OpenBytes(const std::string& path) {
  std::string name = path == "-" ? "standard input" : path;
  const int fd = path == "-" ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, name);
  auto file = std::make_unique<FileBytes>(fd, name);
  const absl::StatusOr<absl::string_view> head = file->Head();
  if (!head.ok()) return head.status();
  if (head->substr(0, kGzipMagic.size()) == kGzipMagic) {
    return GunzipBytes(std::move(file), std::move(name));
  }
  if (*head == kZstdMagic) return UnzstdBytes(std::move(file), std::move(name));
  return file;
}

}  // namespace quiver::index
