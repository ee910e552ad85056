#include "tools/quiver/progress.h"

#include <unistd.h>

#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tools/quiver/command_line.h"

namespace quiver {
namespace {

constexpr absl::Duration kLiveInterval = absl::Milliseconds(200);
constexpr absl::Duration kLineInterval = absl::Seconds(5);

}  // namespace

Progress::Progress()
    : live_(isatty(STDERR_FILENO) != 0),
      next_(absl::Now() + (live_ ? kLiveInterval : kLineInterval)) {}

void Progress::Update(absl::string_view text) {
  if (absl::Now() >= next_) Show(text);
}

void Progress::Show(absl::string_view text) {
  next_ = absl::Now() + (live_ ? kLiveInterval : kLineInterval);
  if (!live_) {
    Say(text);
    return;
  }
  const std::string line = absl::StrCat("\r", text, "\x1b[K");
  std::fwrite(line.data(), 1, line.size(), stderr);
  shown_ = true;
}

void Progress::Clear() {
  if (shown_) std::fputs("\r\x1b[K", stderr);
  shown_ = false;
}

}  // namespace quiver
