// One run of `quiver index`: documents in, rows and rejects out.
#ifndef QUIVER_TOOLS_INDEX_INDEXER_H_
#define QUIVER_TOOLS_INDEX_INDEXER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "quiver/client_stream.h"
#include "tools/index/chunker.h"
#include "tools/index/document_source.h"
#include "tools/index/index_sink.h"
#include "tools/index/row_window.h"

namespace quiver::index {

// The documents whose number, counted from 0, is `index` modulo `count`.
struct Shard {
  uint64_t index = 0;
  uint64_t count = 1;
};

struct IndexerOptions {
  Shard shard;
  ChunkOptions chunks;
  // Needed if chunks.max_tokens is not 0.
  TokenCounter count_tokens = nullptr;
  // Between two checkpoints: what a kill costs at most.
  absl::Duration commit_interval = absl::Seconds(2);
};

// What a run has done so far, what earlier runs did included.
struct IndexProgress {
  Checkpoint done;
  // Of this run alone.
  uint64_t new_rows = 0;
  uint64_t new_tokens = 0;
  // The part of the input that is done; negative if it is not known.
  double part = -1;
};

// Reads documents on one thread, reads results on another, and hands them to the sink, in order, on
// the caller's. An input of which the server says that it is wrong becomes a reject; an error that
// may pass ends the run, which can then be resumed.
class Indexer {
 public:
  // Called on the caller's thread every few milliseconds at most.
  using OnProgress = std::function<void(const IndexProgress&)>;

  Indexer(IndexerOptions options, std::unique_ptr<client::EmbedStream> stream,
          DocumentSource* source, IndexSink* sink, size_t vector_bytes);

  // Once. Goes on behind `start`, whose run is this one. Returns when all is in the sink and the
  // sink is finished, or why not; everything up to the last commit then stays.
  absl::Status Run(const Checkpoint& start, const OnProgress& on_progress);

  // What was done, also by a run that failed.
  const IndexProgress& progress() const { return progress_; }

 private:
  void WriteInputs(uint64_t documents_done);
  // Cuts a document and adds its rows to window and stream. False if the run has ended.
  bool AddDocument(Document document, uint64_t documents);
  bool AddRow(PendingRow row);
  void ReadResults();
  // Puts what comes out of the window into the sink until nothing more comes.
  absl::Status Drain(const OnProgress& on_progress);
  absl::Status Put(const PendingRow& row);
  absl::Status Commit();

  const IndexerOptions options_;
  const std::unique_ptr<client::EmbedStream> stream_;
  DocumentSource& source_;
  IndexSink& sink_;
  RowWindow window_;
  IndexProgress progress_;
  // Of what was put, always whole documents: the next checkpoint.
  Checkpoint put_;
  uint64_t committed_documents_ = 0;
  absl::Time last_commit_;
  // Records that were read, which shards of this input may end with.
  std::atomic<uint64_t> documents_read_{0};
};

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_INDEXER_H_
