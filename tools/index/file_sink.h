// An index in files: out.fbin (or another format) with the vectors, out.rows.jsonl with a line a
// row, out.scales.f32 with a float32 a row where elements are int8, out.rejects.jsonl if anything
// was rejected, out.meta.json once all is whole, and until then out.journal.
#ifndef QUIVER_TOOLS_INDEX_FILE_SINK_H_
#define QUIVER_TOOLS_INDEX_FILE_SINK_H_

#include <memory>
#include <string>
#include <vector>

#include "tools/index/durable_file.h"
#include "tools/index/index_sink.h"
#include "tools/index/journal.h"
#include "tools/index/row_format.h"

namespace quiver::index {

class FileSink : public IndexSink {
 public:
  struct Options {
    // Of the vectors; the names of the others are made of it.
    std::string path;
    RowFormat format = RowFormat::kFbin;
    // Rows carry their text.
    bool with_text = true;
    // Removes what is there, an interrupted run included.
    bool overwrite = false;
  };

  explicit FileSink(Options options);

  absl::StatusOr<State> Begin(const IndexSpace& space, const RunIdentity& run) override;
  absl::Status Append(const IndexRow& row) override;
  absl::Status Reject(const Rejected& rejected) override;
  absl::Status Commit(const Checkpoint& checkpoint) override;
  absl::Status Finish() override;
  std::string RejectsPlace() const override { return PathOf(kRejects); }

 private:
  enum File { kVectors, kRows, kScales, kRejects, kFileCount };

  std::string PathOf(File file) const;
  bool Has(File file) const;
  // Whether meta.json is there and of this run; an error if it is of another.
  absl::StatusOr<State> ReadMeta(const RunIdentity& run) const;
  absl::Status RemoveAll() const;
  absl::Status OpenFiles(const IndexSpace& space);

  const Options options_;
  // `path` without its ending.
  const std::string stem_;
  std::string row_;
  IndexSpace space_;
  Checkpoint last_;
  std::unique_ptr<Journal> journal_;
  std::unique_ptr<DurableFile> files_[kFileCount];
};

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_FILE_SINK_H_
