#ifndef QUIVER_TOOLS_INDEX_JOURNAL_H_
#define QUIVER_TOOLS_INDEX_JOURNAL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/index/durable_file.h"
#include "tools/index/index_row.h"

namespace quiver::index {

// How far a run that writes files has come: first a line that says which run it is, then a line a
// checkpoint, each JSON behind a digest, so that a line that was not written to its end is no line.
// Not thread-safe.
class Journal {
 public:
  struct Entry {
    Checkpoint checkpoint;
    // Of each file of the output, in bytes.
    std::vector<uint64_t> sizes;
  };

  // Takes up the journal at `path`, or begins one if there is none that can be read and
  // `may_begin`. FAILED_PRECONDITION if it is another run's than `run` (and says what differs), if
  // it is damaged and must not begin anew, or if another process holds it.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::string& path,
                                                       const RunIdentity& run, bool may_begin);

  // The last one that is whole.
  const std::optional<Entry>& last() const { return last_; }

  // Durable when it returns.
  absl::Status Add(const Entry& entry);

 private:
  explicit Journal(std::unique_ptr<DurableFile> file) : file_(std::move(file)) {}
  // Reads the lines that are whole and cuts off the rest.
  absl::Status ReadLines(const std::string& path, const RunIdentity& run, bool may_begin);

  const std::unique_ptr<DurableFile> file_;
  std::optional<Entry> last_;
};

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_JOURNAL_H_
