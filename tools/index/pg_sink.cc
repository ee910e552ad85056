#include "tools/index/pg_sink.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"

namespace quiver::index {
namespace {

constexpr absl::Duration kFirstWait = absl::Milliseconds(100);
constexpr absl::Duration kMaxWait = absl::Seconds(5);
// How long a server takes to notice, at most, that the last writer was killed.
constexpr absl::Duration kLockPatience = absl::Seconds(10);

std::string SourceOf(const RunIdentity& run) {
  using Json = nlohmann::json;
  const Json all = Json::parse(run, nullptr, /*allow_exceptions=*/false);
  Json source = Json::object();
  for (const char* name : {"input", "shard"}) {
    if (all.is_object() && all.contains(name)) source[name] = all[name];
  }
  return source.dump();
}

uint64_t Number(const std::string& text) {
  uint64_t value = 0;
  return absl::SimpleAtoi(text, &value) ? value : 0;
}

}  // namespace

PgSink::PgSink(Options options) : options_(std::move(options)), rows_(PgCopyHeader()) {}

absl::Status PgSink::Connect() {
  absl::StatusOr<std::unique_ptr<PgConnection>> connection = PgConnection::Open(options_.url);
  if (!connection.ok()) return connection.status();
  absl::StatusOr<PgTable> table = FindPgTable(connection->get(), options_.table);
  if (!table.ok()) return table.status();
  table_ = *std::move(table);
  const absl::Time give_up = absl::Now() + kLockPatience;
  for (;;) {
    const absl::StatusOr<PgRows> rows =
        (*connection)
            ->Run("SELECT 1 WHERE pg_try_advisory_lock(hashtextextended($1, 0))",
                  {table_.quoted + source_});
    if (!rows.ok()) return rows.status();
    if (rows->size() == 1) break;
    if (absl::Now() > give_up) {
      return absl::FailedPreconditionError(
          absl::StrCat("table ", table_.given, ": another process writes this run to it"));
    }
    absl::SleepFor(kFirstWait);
  }
  connection_ = *std::move(connection);
  return absl::OkStatus();
}

absl::Status PgSink::TryTransaction(const std::function<absl::Status()>& work) {
  absl::Status status;
  if (connection_ == nullptr) status = Connect();
  if (status.ok()) status = connection_->Run("BEGIN").status();
  if (status.ok()) status = work();
  if (status.ok()) status = connection_->Run("COMMIT").status();
  if (!status.ok()) connection_.reset();
  return status;
}

absl::Status PgSink::InTransaction(const std::function<absl::Status()>& work) {
  const absl::Time give_up = absl::Now() + options_.patience;
  absl::Duration wait = kFirstWait;
  for (;;) {
    absl::Status status = TryTransaction(work);
    if (!absl::IsUnavailable(status) || absl::Now() + wait > give_up) return status;
    absl::SleepFor(wait);
    wait = std::min(2 * wait, kMaxWait);
  }
}

absl::StatusOr<IndexSink::State> PgSink::Begin(const IndexSpace& space, const RunIdentity& run) {
  space_ = space;
  run_ = run;
  source_ = SourceOf(run);
  if (options_.hnsw) {
    if (absl::Status status = CheckHnswDimensions(space); !status.ok()) return status;
  }
  // A server that was never reached is more likely a wrong address than a lost connection.
  if (absl::Status status = Connect(); !status.ok()) return status;
  absl::StatusOr<State> state;
  absl::Status status = InTransaction([&] {
    state = BeginRun();
    return state.status();
  });
  if (!status.ok()) return status;
  return state;
}

absl::StatusOr<IndexSink::State> PgSink::BeginRun() {
  // Runs that begin at once would make the same tables.
  absl::StatusOr<PgRows> rows =
      connection_->Run("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", {table_.quoted});
  if (!rows.ok()) return rows.status();
  if (absl::Status s = MakePgTables(connection_.get(), table_, space_); !s.ok()) return s;

  rows = connection_->Run(absl::StrCat("SELECT fingerprint, model FROM ", table_.runs,
                                       " WHERE table_name = $1 AND fingerprint <> $2"),
                          {table_.name, space_.space.fingerprint});
  if (!rows.ok()) return rows.status();
  if (rows->size() > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("table ", table_.given, ": its vectors are of the space ", rows->At(0, 0),
                     " (model ", rows->At(0, 1), "), this run's of ", space_.space.fingerprint,
                     " (model ", space_.model, ")"));
  }
  rows = connection_->Run(absl::StrCat("SELECT run, documents, rows, rejects, complete FROM ",
                                       table_.runs, " WHERE table_name = $1 AND source = $2"),
                          {table_.name, source_});
  if (!rows.ok()) return rows.status();
  if (rows->size() == 0) {
    rows = connection_->Run(absl::StrCat("INSERT INTO ", table_.runs,
                                         " VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0, false)"),
                            {table_.name, source_, run_, space_.model, space_.space.fingerprint,
                             space_.space.prompt_fingerprint});
    if (!rows.ok()) return rows.status();
    return State{};
  }
  if (const std::string difference = DifferenceOfRuns(rows->At(0, 0), run_); !difference.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "table ", table_.given, ": has rows of a run that was not this one: ", difference));
  }
  return State{.checkpoint = Checkpoint{.documents = Number(rows->At(0, 1)),
                                        .rows = Number(rows->At(0, 2)),
                                        .rejects = Number(rows->At(0, 3)),
                                        .run = run_},
               .complete = rows->At(0, 4) == "t"};
}

absl::Status PgSink::Append(const IndexRow& row) {
  AppendPgRow(row, &rows_);
  return absl::OkStatus();
}

absl::Status PgSink::Reject(const Rejected& rejected) {
  rejects_.push_back(rejected);
  return absl::OkStatus();
}

absl::Status PgSink::Commit(const Checkpoint& checkpoint) {
  absl::StrAppend(&rows_, PgCopyEnd());
  if (absl::Status s = InTransaction([&] { return CommitTo(checkpoint); }); !s.ok()) return s;
  rows_ = std::string(PgCopyHeader());
  rejects_.clear();
  return absl::OkStatus();
}

absl::Status PgSink::CommitTo(const Checkpoint& checkpoint) {
  const std::string documents = absl::StrCat(checkpoint.documents);
  // Moves the checkpoint, unless a connection that was lost at its COMMIT has done so before.
  absl::StatusOr<PgRows> rows = connection_->Run(
      absl::StrCat("UPDATE ", table_.runs, " SET documents = $3, rows = $4, rejects = $5 ",
                   "WHERE table_name = $1 AND source = $2 AND (documents <> $3 OR rows <> $4 OR "
                   "rejects <> $5) RETURNING 1"),
      {table_.name, source_, documents, absl::StrCat(checkpoint.rows),
       absl::StrCat(checkpoint.rejects)});
  if (!rows.ok() || rows->size() == 0) return rows.status();
  for (const Rejected& rejected : rejects_) {
    rows = connection_->Run(
        absl::StrCat("INSERT INTO ", table_.rejects, " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"),
        {table_.name, source_, rejected.id, absl::StrCat(rejected.chunk), rejected.place,
         rejected.field, rejected.code, rejected.reason});
    if (!rows.ok()) return rows.status();
  }
  return connection_->Copy(
      absl::StrCat("COPY ", table_.quoted,
                   " (id, chunk, begin_byte, end_byte, text, embedding) FROM STDIN WITH BINARY"),
      rows_);
}

absl::Status PgSink::Finish() {
  return InTransaction([&] {
    // Of several runs that end at once, one makes the index.
    absl::StatusOr<PgRows> rows =
        connection_->Run("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", {table_.quoted});
    if (!rows.ok()) return rows.status();
    if (options_.hnsw) {
      absl::Status status = MakeHnswIndex(connection_.get(), table_, space_);
      if (!status.ok()) return status;
    }
    return connection_
        ->Run(absl::StrCat("UPDATE ", table_.runs,
                           " SET complete = true WHERE table_name = $1 AND source = $2"),
              {table_.name, source_})
        .status();
  });
}

}  // namespace quiver::index
