// Where an index goes.
#ifndef QUIVER_TOOLS_INDEX_INDEX_SINK_H_
#define QUIVER_TOOLS_INDEX_INDEX_SINK_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/index/index_row.h"

namespace quiver::index {

// Takes the rows and rejects of a run in the order of the documents, chunks within. What was not
// committed when the process ends, however it ends, is gone when the run is resumed, so that each
// row is there once. Not thread-safe. Errors name the file, or the table and server.
//
// Calls: Begin; then Append, Reject and Commit in any order; then Finish. After an error, none.
class IndexSink {
 public:
  struct State {
    // The last durable one; without one the run begins at the beginning.
    std::optional<Checkpoint> checkpoint;
    // The run was finished before; nothing is left to do.
    bool complete = false;
  };

  virtual ~IndexSink() = default;

  // Opens the output, or takes up an interrupted run at its last checkpoint. FAILED_PRECONDITION if
  // what is there is of another run than `run`, and says what differs, or if another process writes
  // it.
  virtual absl::StatusOr<State> Begin(const IndexSpace& space, const RunIdentity& run) = 0;

  virtual absl::Status Append(const IndexRow& row) = 0;
  virtual absl::Status Reject(const Rejected& rejected) = 0;

  // Makes `checkpoint` and all that was taken before durable, together or not at all.
  virtual absl::Status Commit(const Checkpoint& checkpoint) = 0;

  // After the Commit of the last checkpoint: completes the output.
  virtual absl::Status Finish() = 0;

  // Where rejects go, for people: a file or a table. Before Begin, too.
  virtual std::string RejectsPlace() const = 0;
};

// The parts in which two runs differ, for people: "dimensions was 384, is 256"; empty if none.
std::string DifferenceOfRuns(const RunIdentity& before, const RunIdentity& now);

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_INDEX_SINK_H_
