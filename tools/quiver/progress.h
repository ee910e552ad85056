#ifndef QUIVER_TOOLS_QUIVER_PROGRESS_H_
#define QUIVER_TOOLS_QUIVER_PROGRESS_H_

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace quiver {

// What a long command is doing, on standard error: a line that is overwritten on a terminal, a line
// every few seconds elsewhere.
class Progress {
 public:
  Progress();
  ~Progress() { Clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Shows `text` if it is time to.
  void Update(absl::string_view text);
  // Shows `text` now.
  void Show(absl::string_view text);
  // Wipes what a terminal shows.
  void Clear();

 private:
  const bool live_;
  absl::Time next_;
  bool shown_ = false;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_PROGRESS_H_
