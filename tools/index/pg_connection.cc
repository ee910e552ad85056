#include "tools/index/pg_connection.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace quiver::index {

bool IsPgUrl(absl::string_view text) {
  return absl::StartsWith(text, "postgresql://") || absl::StartsWith(text, "postgres://");
}

absl::StatusOr<std::unique_ptr<PgConnection>> PgConnection::Open(const std::string& url) {
  // What libpq says of a URL may quote the part that has the password.
  PQconninfoOption* const options = PQconninfoParse(url.c_str(), nullptr);
  if (options == nullptr) {
    return absl::InvalidArgumentError(
        "the database must be postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?OPTION=VALUE]");
  }
  PQconninfoFree(options);
  const char* const names[] = {"dbname", "connect_timeout", "fallback_application_name", nullptr};
  const char* const values[] = {url.c_str(), "10", "quiver", nullptr};
  std::unique_ptr<PgConnection> connection(
      new PgConnection(PQconnectdbParams(names, values, /*expand_dbname=*/1)));
  PGconn* const pg = connection->connection_.get();
  if (PQstatus(pg) != CONNECTION_OK) return connection->Error();
  PQsetNoticeProcessor(
      pg, [](void*, const char*) {}, nullptr);
  return connection;
}

absl::Status PgConnection::Error() const {
  PGconn* const pg = connection_.get();
  const auto part = [](const char* text) { return absl::string_view(text == nullptr ? "" : text); };
  const std::string message =
      absl::StrCat("PostgreSQL at ", part(PQhost(pg)), ":", part(PQport(pg)), ", database ",
                   part(PQdb(pg)), ": ", absl::StripAsciiWhitespace(part(PQerrorMessage(pg))));
  return PQstatus(pg) == CONNECTION_OK ? absl::FailedPreconditionError(message)
                                       : absl::UnavailableError(message);
}

absl::StatusOr<PgRows> PgConnection::Run(const std::string& statement,
                                         const std::vector<std::string>& values) {
  std::vector<const char*> pointers;
  for (const std::string& value : values) pointers.push_back(value.c_str());
  PgRows rows(PQexecParams(connection_.get(), statement.c_str(), static_cast<int>(pointers.size()),
                           nullptr, pointers.data(), nullptr, nullptr, /*resultFormat=*/0));
  const ExecStatusType status = rows.status();
  if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) return Error();
  return rows;
}

absl::Status PgConnection::Copy(const std::string& statement, absl::string_view data) {
  // Of libpq's buffer, which grows to what it is given.
  constexpr size_t kPiece = size_t{1} << 20;
  PGconn* const pg = connection_.get();
  const PgRows begun(PQexec(pg, statement.c_str()));
  if (begun.status() != PGRES_COPY_IN) return Error();
  absl::Status status;
  for (size_t at = 0; at < data.size(); at += kPiece) {
    const absl::string_view piece = data.substr(at, kPiece);
    if (PQputCopyData(pg, piece.data(), static_cast<int>(piece.size())) != 1) return Error();
  }
  if (PQputCopyEnd(pg, nullptr) != 1) return Error();
  // All results up to the null one, or the connection cannot be used again.
  for (PGresult* next = PQgetResult(pg); next != nullptr; next = PQgetResult(pg)) {
    const PgRows result(next);
    if (result.status() != PGRES_COMMAND_OK) status.Update(Error());
    // A lost connection never comes to the null one.
    if (PQstatus(pg) != CONNECTION_OK) return Error();
  }
  return status;
}

std::string PgConnection::Quote(const std::string& name) const {
  char* const quoted = PQescapeIdentifier(connection_.get(), name.data(), name.size());
  std::string text = quoted == nullptr ? "" : quoted;
  PQfreemem(quoted);
  return text;
}

}  // namespace quiver::index
