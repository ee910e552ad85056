// A source of programs, not of the library: occupies descriptors 0, 1 and 2 where the process was
// started with them closed, so that nothing opened later becomes standard input, output or error.
// Reading such an input and writing such an output still fail with EBADF.
#include <fcntl.h>
#include <unistd.h>

namespace quiver {
namespace {

void OccupyStandardDescriptors(int, char**, char**) {
  // The wrong direction is what makes reading and writing fail.
  constexpr int kFlags[] = {O_WRONLY, O_RDONLY, O_WRONLY};
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    // The lowest free descriptor is taken, which is `fd`.
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", kFlags[fd]) != fd) return;
  }
}

// Before main, as static initializers of libraries open descriptors.
[[gnu::section(".preinit_array"),
  gnu::used]] void (*const kOccupy)(int, char**, char**) = OccupyStandardDescriptors;

}  // namespace
}  // namespace quiver
