#ifndef QUIVER_TOOLS_QUIVER_OUTPUT_FILE_H_
#define QUIVER_TOOLS_QUIVER_OUTPUT_FILE_H_

#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quiver {

// Standard output or a file. Not thread-safe.
class OutputFile {
 public:
  enum class Mode {
    // Bytes go where they belong as they come.
    kAsItGoes,
    // The file gets its name, and replaces one that has it, when it is whole: at Close. Without
    // Close nothing is left of it.
    kWhole,
  };

  // `path` is a file, or "-" for standard output. kWhole needs a regular file: FAILED_PRECONDITION.
  // Errors name the path.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Open(const std::string& path, Mode mode);

  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // CANCELLED if nobody reads any more (a pipe whose other end was closed).
  absl::Status Write(absl::string_view bytes);
  absl::Status Flush();
  // Overwrites the beginning; kWhole only.
  absl::Status WriteAtStart(absl::string_view bytes);
  // Nothing may be written afterwards.
  absl::Status Close();

 private:
  OutputFile(std::string path, std::string staging, std::FILE* file)
      : path_(std::move(path)), staging_(std::move(staging)), file_(file) {}

  absl::Status Error() const;

  const std::string path_;
  // Where the bytes go until Close; empty in kAsItGoes.
  std::string staging_;
  std::FILE* file_;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_OUTPUT_FILE_H_
