#ifndef QUIVER_TOOLS_QUIVER_LINE_READER_H_
#define QUIVER_TOOLS_QUIVER_LINE_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace quiver {

// The lines of a file or a pipe. Memory is bounded by the longest line kept. One thread reads; any
// thread may interrupt.
class LineReader {
 public:
  struct Line {
    // Counted from 1.
    uint64_t number = 0;
    // Without its end ("\n" or "\r\n"), and without a byte order mark if it is the first.
    std::string text;
    // Bytes of the whole line. More than text has if it was longer than is kept; its rest was
    // skipped.
    uint64_t size = 0;
  };

  // `path` is a file, or "-" for standard input. NOT_FOUND, PERMISSION_DENIED or
  // FAILED_PRECONDITION (a directory) names it.
  static absl::StatusOr<std::unique_ptr<LineReader>> Open(const std::string& path,
                                                          size_t max_line_bytes);
  // Reads `fd`, and closes it at the end if `owned`. `name` is for messages.
  LineReader(int fd, bool owned, std::string name, size_t max_line_bytes);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // The next line. False at the end, after Interrupt, and after an error, which status() then has.
  // A last line without an end counts; an empty rest behind the last end does not.
  bool Next(Line* line);

  // Whether Next would wait for somebody to write.
  bool WouldWait() const;

  // Makes this and every later Next return false soon; status() is then CANCELLED.
  void Interrupt();

  // Makes Next return false from then on; status() is then DEADLINE_EXCEEDED. Set before reading.
  void StopAt(absl::Time deadline) { deadline_ = deadline; }

  const absl::Status& status() const { return status_; }

 private:
  // Waits for bytes and reads them, when there are none. False at the end.
  bool Fill();
  void ReadMore();
  // Reads no more, not even what is there.
  void End(absl::Status status);

  const int fd_;
  const bool owned_;
  const std::string name_;
  const size_t max_line_bytes_;
  // An eventfd.
  int interrupt_ = -1;
  std::string buffer_;
  size_t begin_ = 0, end_ = 0;
  uint64_t number_ = 0;
  absl::Time deadline_ = absl::InfiniteFuture();
  bool at_end_ = false;
  absl::Status status_;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_LINE_READER_H_
