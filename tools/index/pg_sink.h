// An index in PostgreSQL with pgvector.
#ifndef QUIVER_TOOLS_INDEX_PG_SINK_H_
#define QUIVER_TOOLS_INDEX_PG_SINK_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "tools/index/index_sink.h"
#include "tools/index/pg_connection.h"
#include "tools/index/pg_table.h"

namespace quiver::index {

// Each Commit is one transaction: a binary COPY of the rows, the rejects, and the checkpoint in
// quiver_runs. Until then rows are held in memory, so that a transaction whose connection was lost
// is run again, unless it turns out to have been committed.
//
// Several runs may write one table, at once too, if they differ in their input or shard and have
// one vector space.
class PgSink : public IndexSink {
 public:
  struct Options {
    std::string url;
    // TABLE or SCHEMA.TABLE.
    std::string table;
    // Finish makes an HNSW index if the table has none.
    bool hnsw = true;
    // How long a lost connection is tried again, with growing waits.
    absl::Duration patience = absl::Minutes(5);
  };

  explicit PgSink(Options options);

  absl::StatusOr<State> Begin(const IndexSpace& space, const RunIdentity& run) override;
  absl::Status Append(const IndexRow& row) override;
  absl::Status Reject(const Rejected& rejected) override;
  absl::Status Commit(const Checkpoint& checkpoint) override;
  absl::Status Finish() override;
  std::string RejectsPlace() const override { return "the table quiver_rejects"; }

 private:
  // Opens the connection, finds the table, and makes this the run's only writer.
  absl::Status Connect();
  // Runs `work` in a transaction, again on a new connection when one was lost.
  absl::Status InTransaction(const std::function<absl::Status()>& work);
  absl::Status TryTransaction(const std::function<absl::Status()>& work);

  absl::StatusOr<State> BeginRun();
  absl::Status CommitTo(const Checkpoint& checkpoint);

  const Options options_;
  IndexSpace space_;
  RunIdentity run_;
  // What of the run tells it from others that may write the same table: its input and shard.
  std::string source_;
  std::unique_ptr<PgConnection> connection_;
  PgTable table_;
  // Since the last Commit, as COPY takes it.
  std::string rows_;
  std::vector<Rejected> rejects_;
};

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_PG_SINK_H_
