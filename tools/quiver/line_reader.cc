#include "tools/quiver/line_reader.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quiver {
namespace {

constexpr size_t kBufferBytes = 256 * 1024;
constexpr char kNotDone[] = "not done by the deadline";
constexpr absl::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

absl::StatusOr<std::unique_ptr<LineReader>> LineReader::Open(const std::string& path,
                                                             size_t max_line_bytes) {
  if (path == "-") {
    return std::make_unique<LineReader>(STDIN_FILENO, false, "standard input", max_line_bytes);
  }
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, path);
  auto reader = std::make_unique<LineReader>(fd, true, path, max_line_bytes);
  struct stat about;
  if (fstat(fd, &about) == 0 && S_ISDIR(about.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": is a directory"));
  }
  return reader;
}

LineReader::LineReader(int fd, bool owned, std::string name, size_t max_line_bytes)
    : fd_(fd),
      owned_(owned),
      name_(std::move(name)),
      max_line_bytes_(max_line_bytes),
      interrupt_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      buffer_(kBufferBytes, '\0') {}

LineReader::~LineReader() {
  if (owned_) close(fd_);
  if (interrupt_ >= 0) close(interrupt_);
}

bool LineReader::Next(Line* line) {
  line->text.clear();
  line->size = 0;
  bool found = false;
  bool any = false;
  if (absl::Now() >= deadline_) End(absl::DeadlineExceededError(kNotDone));
  while (!found && (begin_ < end_ || Fill())) {
    any = true;
    const char* start = buffer_.data() + begin_;
    const size_t available = end_ - begin_;
    const void* newline = std::memchr(start, '\n', available);
    found = newline != nullptr;
    const size_t length =
        found ? static_cast<size_t>(static_cast<const char*>(newline) - start) : available;
    // One byte more than is kept, since a carriage return may end it.
    const size_t room = max_line_bytes_ + 1 - line->text.size();
    line->text.append(start, std::min(length, room));
    line->size += length;
    begin_ += length + (found ? 1 : 0);
  }
  if (!any || !status_.ok()) return false;
  line->number = ++number_;
  if (line->size == line->text.size() && absl::EndsWith(line->text, "\r")) {
    line->text.pop_back();
    --line->size;
  }
  if (line->text.size() > max_line_bytes_) line->text.resize(max_line_bytes_);
  if (line->number == 1 && absl::StartsWith(line->text, kByteOrderMark)) {
    line->text.erase(0, kByteOrderMark.size());
    line->size -= kByteOrderMark.size();
  }
  return true;
}

bool LineReader::WouldWait() const {
  if (at_end_ || std::memchr(buffer_.data() + begin_, '\n', end_ - begin_) != nullptr) return false;
  pollfd ready = {.fd = fd_, .events = POLLIN, .revents = 0};
  return poll(&ready, 1, 0) == 0;
}

void LineReader::Interrupt() {
  const uint64_t one = 1;
  // Fails only if it was interrupted often before.
  [[maybe_unused]] const ssize_t written = write(interrupt_, &one, sizeof(one));
}

bool LineReader::Fill() {
  while (!at_end_) {
    pollfd ready[2] = {{.fd = fd_, .events = POLLIN, .revents = 0},
                       {.fd = interrupt_, .events = POLLIN, .revents = 0}};
    const timespec left = absl::ToTimespec(std::max(deadline_ - absl::Now(), absl::ZeroDuration()));
    const bool forever = deadline_ == absl::InfiniteFuture();
    const int count = ppoll(ready, 2, forever ? nullptr : &left, nullptr);
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) {
      End(absl::DeadlineExceededError(kNotDone));
    } else if (ready[1].revents != 0) {
      End(absl::CancelledError("interrupted"));
    } else {
      ReadMore();
      if (begin_ < end_) return true;
    }
  }
  return false;
}

void LineReader::ReadMore() {
  const ssize_t count = read(fd_, buffer_.data(), buffer_.size());
  if (count > 0) {
    begin_ = 0;
    end_ = static_cast<size_t>(count);
  } else if (count == 0) {
    at_end_ = true;
  } else if (errno != EINTR && errno != EAGAIN) {
    End(absl::ErrnoToStatus(errno, name_));
  }
}

void LineReader::End(absl::Status status) {
  status_.Update(status);
  at_end_ = true;
  begin_ = end_ = 0;
}

}  // namespace quiver
