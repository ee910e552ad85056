// The tables of an index in PostgreSQL.
//
//   TABLE           id text, chunk integer, begin_byte bigint, end_byte bigint, text text,
//                   embedding vector(d) or halfvec(d); a row a chunk
//   quiver_runs     a row a run that wrote to a table: what it is, its vector space, how far it is
//   quiver_rejects  what had no vector
// All stand in one schema.
#ifndef QUIVER_TOOLS_INDEX_PG_TABLE_H_
#define QUIVER_TOOLS_INDEX_PG_TABLE_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "tools/index/index_row.h"
#include "tools/index/pg_connection.h"

namespace quiver::index {

// Names of tables are in quotes, for statements.
struct PgTable {
  // As the user gave it, for messages.
  std::string given;
  // Without its schema: how quiver_runs and quiver_rejects speak of it.
  std::string name;
  std::string quoted;
  std::string runs;
  std::string rejects;
};

// `name` is TABLE or SCHEMA.TABLE; without a schema it is the connection's first.
absl::StatusOr<PgTable> FindPgTable(PgConnection* connection, const std::string& name);

// Types of a table's columns by their names; empty if there is no such table.
absl::StatusOr<std::map<std::string, std::string>> PgColumns(PgConnection* connection,
                                                             const std::string& quoted_table);

// "vector" or "halfvec". INVALID_ARGUMENT for elements that are neither float32 nor float16.
absl::StatusOr<std::string> PgVectorType(client::ElementType type);

// Makes what is missing. FAILED_PRECONDITION if the table is there with other columns, or with rows
// of which no run tells the vector space.
absl::Status MakePgTables(PgConnection* connection, const PgTable& table, const IndexSpace& space);

// Makes an HNSW index by cosine unless the table has one; takes minutes for millions of rows.
absl::Status MakeHnswIndex(PgConnection* connection, const PgTable& table, const IndexSpace& space);

// INVALID_ARGUMENT if pgvector's HNSW cannot have as many dimensions.
absl::Status CheckHnswDimensions(const IndexSpace& space);

// What COPY ... WITH BINARY takes: a header, a row after the other, an end.
absl::string_view PgCopyHeader();
absl::string_view PgCopyEnd();
// `row` has float32 or float16 elements. A NUL in a text, which PostgreSQL cannot store, becomes a
// blank.
void AppendPgRow(const IndexRow& row, std::string* out);

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_PG_TABLE_H_
