// What a command works on: texts with names, one after the other.
#ifndef QUIVER_TOOLS_QUIVER_INPUT_SOURCE_H_
#define QUIVER_TOOLS_QUIVER_INPUT_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace quiver {

struct InputItem {
  // Position among the items, counted from 0.
  uint64_t index = 0;
  // Where it came from, for messages: "line 7", "argument 2".
  std::string place;
  // Its own name as JSON (a string or an integer), empty if it has none.
  std::string id_json;
  // Valid UTF-8, or why there is no text: a line that is not UTF-8 (byte offset), not the JSON
  // asked for, or too long.
  absl::StatusOr<std::string> text;
};

// One thread reads; any thread may interrupt.
class InputSource {
 public:
  virtual ~InputSource() = default;

  // The next item. False at the end, after Interrupt, and after an error of reading.
  virtual bool Next(InputItem* item) = 0;
  // Whether Next would wait for somebody to write into a pipe.
  virtual bool WouldWait() const = 0;
  // Makes this and every later Next return false soon.
  virtual void Interrupt() = 0;
  // Makes Next return false from then on, with DEADLINE_EXCEEDED. Set before reading.
  virtual void StopAt(absl::Time deadline) = 0;
  // What kept Next from reading to the end.
  virtual absl::Status status() const = 0;
};

enum class InputFormat {
  // JSONL if the file is called .jsonl or .ndjson or its first line is an object with a "text",
  // else text.
  kDetect,
  // One text a line. An empty line is an item, which fails as an empty text does, so that results
  // and lines correspond.
  kText,
  // One {"text": ..., "id": ...} a line; "id" (a string or an integer) may be absent, other fields
  // are ignored, blank lines are skipped.
  kJsonl,
};

// Bytes of the longest line that is looked at.
inline constexpr size_t kMaxLineBytes = size_t{64} << 20;

std::unique_ptr<InputSource> SourceOfTexts(std::vector<std::string> texts);

// `path` is a file or "-" for standard input. Errors name it.
absl::StatusOr<std::unique_ptr<InputSource>> SourceOfFile(const std::string& path,
                                                          InputFormat format,
                                                          size_t max_line_bytes = kMaxLineBytes);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_INPUT_SOURCE_H_
