#ifndef QUIVER_SERVER_EVENT_FD_H_
#define QUIVER_SERVER_EVENT_FD_H_

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

namespace quiver {

// Something that happens once, as a descriptor that can be polled for. Thread-safe.
class EventFd {
 public:
  EventFd() : fd_(eventfd(0, EFD_CLOEXEC)) {}
  ~EventFd() { close(fd_); }
  EventFd(const EventFd&) = delete;
  EventFd& operator=(const EventFd&) = delete;

  void Set() {
    const uint64_t one = 1;
    (void)!write(fd_, &one, sizeof(one));
  }
  // Can be read from once it is set.
  int fd() const { return fd_; }

 private:
  const int fd_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_EVENT_FD_H_
