#include "tools/index/pg_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace quiver::index {
namespace {

// pgvector's limits of an HNSW index.
constexpr int kMaxHnswVector = 2000;
constexpr int kMaxHnswHalfvec = 4000;

}  // namespace

absl::StatusOr<PgTable> FindPgTable(PgConnection* connection, const std::string& name) {
  PgTable table = {.given = name, .name = name, .quoted = "", .runs = "", .rejects = ""};
  std::string schema;
  if (const size_t dot = name.find('.'); dot != std::string::npos) {
    schema = name.substr(0, dot);
    table.name = name.substr(dot + 1);
  } else {
    const absl::StatusOr<PgRows> rows = connection->Run("SELECT current_schema()");
    if (!rows.ok()) return rows.status();
    schema = rows->At(0, 0);
  }
  if (schema.empty() || table.name.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--table must be TABLE or SCHEMA.TABLE, is '", name, "'"));
  }
  const std::string prefix = connection->Quote(schema) + ".";
  table.quoted = prefix + connection->Quote(table.name);
  table.runs = prefix + "quiver_runs";
  table.rejects = prefix + "quiver_rejects";
  return table;
}

absl::StatusOr<std::map<std::string, std::string>> PgColumns(PgConnection* connection,
                                                             const std::string& quoted_table) {
  const absl::StatusOr<PgRows> rows = connection->Run(
      "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
      "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
      {quoted_table});
  if (!rows.ok()) return rows.status();
  std::map<std::string, std::string> columns;
  for (int i = 0; i < rows->size(); ++i) columns[rows->At(i, 0)] = rows->At(i, 1);
  return columns;
}

absl::StatusOr<std::string> PgVectorType(client::ElementType type) {
  if (type == client::ElementType::kFloat32) return "vector";
  if (type == client::ElementType::kFloat16) return "halfvec";
  return absl::InvalidArgumentError("--output-type must be float32 or float16 for PostgreSQL");
}

absl::Status CheckHnswDimensions(const IndexSpace& space) {
  const bool half = space.type == client::ElementType::kFloat16;
  const int limit = half ? kMaxHnswHalfvec : kMaxHnswVector;
  if (space.dimensions <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--dimensions: pgvector's HNSW takes at most ", limit, " of ", half ? "float16" : "float32",
      ", are ", space.dimensions, half ? "" : " (--output-type float16 takes more)",
      "; --no-hnsw makes no index"));
}

absl::Status MakePgTables(PgConnection* connection, const PgTable& table, const IndexSpace& space) {
  const absl::StatusOr<std::string> type = PgVectorType(space.type);
  if (!type.ok()) return type.status();
  const std::map<std::string, std::string> wanted = {
      {"id", "text"},           {"chunk", "integer"},
      {"begin_byte", "bigint"}, {"end_byte", "bigint"},
      {"text", "text"},         {"embedding", absl::StrCat(*type, "(", space.dimensions, ")")}};
  // Asked first, as making it takes a right that using it does not.
  absl::StatusOr<PgRows> rows =
      connection->Run("SELECT 1 FROM pg_extension WHERE extname = 'vector'");
  if (rows.ok() && rows->size() == 0) rows = connection->Run("CREATE EXTENSION vector");
  if (rows.ok()) {
    rows = connection->Run(absl::StrCat(
        "CREATE TABLE IF NOT EXISTS ", table.runs,
        " (table_name text, source text, run text NOT NULL, model text NOT NULL, "
        "fingerprint text NOT NULL, prompt_fingerprint text NOT NULL, documents bigint NOT NULL, "
        "rows bigint NOT NULL, rejects bigint NOT NULL, complete boolean NOT NULL, "
        "PRIMARY KEY (table_name, source))"));
  }
  if (rows.ok()) {
    rows = connection->Run(absl::StrCat(
        "CREATE TABLE IF NOT EXISTS ", table.rejects,
        " (table_name text, source text, id text, chunk integer, place text, field text, "
        "code text, reason text)"));
  }
  if (!rows.ok()) return rows.status();

  const auto columns = PgColumns(connection, table.quoted);
  if (!columns.ok()) return columns.status();
  if (columns->empty()) {
    rows = connection->Run(
        absl::StrCat("CREATE TABLE ", table.quoted,
                     " (id text NOT NULL, chunk integer NOT NULL, begin_byte bigint NOT NULL, "
                     "end_byte bigint NOT NULL, text text NOT NULL, embedding ",
                     wanted.at("embedding"), " NOT NULL)"));
    // Of a table of that name which is no more.
    for (const std::string& other : {table.runs, table.rejects}) {
      if (rows.ok()) {
        rows = connection->Run(absl::StrCat("DELETE FROM ", other, " WHERE table_name = $1"),
                               {table.name});
      }
    }
    return rows.status();
  }
  for (const auto& [name, column_type] : wanted) {
    const auto found = columns->find(name);
    if (found == columns->end() || found->second != column_type) {
      return absl::FailedPreconditionError(
          absl::StrCat("table ", table.given, ": column ", name, " must be ", column_type, ", is ",
                       found == columns->end() ? "missing" : absl::string_view(found->second)));
    }
  }
  rows = connection->Run(
      absl::StrCat("SELECT 1 WHERE EXISTS (SELECT FROM ", table.quoted,
                   ") AND NOT EXISTS (SELECT FROM ", table.runs, " WHERE table_name = $1)"),
      {table.name});
  if (rows.ok() && rows->size() > 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("table ", table.given,
                     ": has rows that no run of quiver index wrote, whose vector space "
                     "is not known"));
  }
  return rows.status();
}

absl::Status MakeHnswIndex(PgConnection* connection, const PgTable& table,
                           const IndexSpace& space) {
  absl::StatusOr<PgRows> rows = connection->Run(
      "SELECT 1 FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
      "JOIN pg_am ON pg_am.oid = relam WHERE indrelid = to_regclass($1) AND amname = 'hnsw'",
      {table.quoted});
  if (!rows.ok() || rows->size() > 0) return rows.status();
  const absl::StatusOr<std::string> type = PgVectorType(space.type);
  if (!type.ok()) return type.status();
  return connection
      ->Run(absl::StrCat("CREATE INDEX ON ", table.quoted, " USING hnsw (embedding ", *type,
                         "_cosine_ops)"))
      .status();
}

}  // namespace quiver::index
