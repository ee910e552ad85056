// A connection to PostgreSQL, with statuses for errors.
#ifndef QUIVER_TOOLS_INDEX_PG_CONNECTION_H_
#define QUIVER_TOOLS_INDEX_PG_CONNECTION_H_

#include <libpq-fe.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quiver::index {

// "postgresql://..." or "postgres://...".
bool IsPgUrl(absl::string_view text);

// Rows of values as text; null is empty.
class PgRows {
 public:
  explicit PgRows(PGresult* result) : result_(result, &PQclear) {}
  ExecStatusType status() const { return PQresultStatus(result_.get()); }
  int size() const { return PQntuples(result_.get()); }
  std::string At(int row, int column) const { return PQgetvalue(result_.get(), row, column); }

 private:
  std::unique_ptr<PGresult, decltype(&PQclear)> result_;
};

// Not thread-safe. Errors name server and database, never the password: UNAVAILABLE if there is no
// connection or it was lost, after which Open begins a new one; FAILED_PRECONDITION of what the
// server refuses, with its words.
class PgConnection {
 public:
  // The password comes from `url`, PGPASSWORD or the file .pgpass, as libpq takes it.
  // INVALID_ARGUMENT if the URL cannot be understood.
  static absl::StatusOr<std::unique_ptr<PgConnection>> Open(const std::string& url);

  // One statement; $1, $2, ... are `values`.
  absl::StatusOr<PgRows> Run(const std::string& statement,
                             const std::vector<std::string>& values = {});

  // Gives `data` to a COPY ... FROM STDIN.
  absl::Status Copy(const std::string& statement, absl::string_view data);

  // `name` in quotes, for statements.
  std::string Quote(const std::string& name) const;

 private:
  explicit PgConnection(PGconn* connection) : connection_(connection, &PQfinish) {}

  // Why the last call failed.
  absl::Status Error() const;

  std::unique_ptr<PGconn, decltype(&PQfinish)> connection_;
};

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_PG_CONNECTION_H_
