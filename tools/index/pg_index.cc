#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "tools/index/pg_connection.h"
#include "tools/index/pg_table.h"
#include "tools/index/search_index.h"

namespace quiver::index {
namespace {

// Candidates of an HNSW search: what is asked for times this, within pgvector's bounds. pgvector's
// default of 40 loses matches.
constexpr int kCandidatesPerHit = 10;
constexpr int kMinCandidates = 100;
constexpr int kMaxCandidates = 1000;

// As pgvector reads it, to the last bit.
std::string VectorText(absl::Span<const float> values) {
  return absl::StrCat(
      "[",
      absl::StrJoin(values, ",",
                    [](std::string* out, float value) {
                      char text[32];
                      out->append(text, std::to_chars(text, text + sizeof(text), value).ptr);
                    }),
      "]");
}

class PgIndex : public SearchIndex {
 public:
  PgIndex(std::unique_ptr<PgConnection> connection, PgTable table)
      : connection_(std::move(connection)), table_(std::move(table)) {}

  absl::Status ReadMeta() {
    const auto columns = PgColumns(connection_.get(), table_.quoted);
    if (!columns.ok()) return columns.status();
    const auto column = columns->find("embedding");
    // vector(384)
    absl::string_view type = column == columns->end() ? "" : absl::string_view(column->second);
    const size_t parenthesis = std::min(type.find('('), type.size());
    type_ = std::string(type.substr(0, parenthesis));
    absl::string_view number = type.substr(parenthesis);
    if (!absl::ConsumePrefix(&number, "(") || !absl::ConsumeSuffix(&number, ")") ||
        !absl::SimpleAtoi(number, &dimensions_)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "table ", table_.given,
          columns->empty() ? ": does not exist" : ": has no column embedding of vectors"));
    }
    const auto runs = PgColumns(connection_.get(), table_.runs);
    if (!runs.ok()) return runs.status();
    if (!runs->empty()) {
      const absl::StatusOr<PgRows> rows = connection_->Run(
          absl::StrCat("SELECT DISTINCT fingerprint FROM ", table_.runs, " WHERE table_name = $1"),
          {table_.name});
      if (!rows.ok()) return rows.status();
      if (rows->size() == 1) {
        fingerprint_ = rows->At(0, 0);
        return absl::OkStatus();
      }
    }
    return absl::FailedPreconditionError(
        absl::StrCat("table ", table_.given,
                     ": was not written by quiver index, its vector space is not known"));
  }

  const std::string& fingerprint() const override { return fingerprint_; }
  int dimensions() const override { return dimensions_; }

  absl::StatusOr<std::vector<std::vector<Hit>>> Search(absl::Span<const float> queries,
                                                       int top) override {
    const int candidates = static_cast<int>(std::clamp(
        int64_t{kCandidatesPerHit} * top, int64_t{kMinCandidates}, int64_t{kMaxCandidates}));
    absl::StatusOr<PgRows> rows = connection_->Run("SELECT set_config('hnsw.ef_search', $1, false)",
                                                   {absl::StrCat(candidates)});
    if (!rows.ok()) return rows.status();
    const std::string statement =
        absl::StrCat("SELECT id, chunk, text, 1 - (embedding <=> $1::", type_, ") FROM ",
                     table_.quoted, " ORDER BY embedding <=> $1::", type_, " LIMIT $2");
    std::vector<std::vector<Hit>> results;
    for (size_t at = 0; at < queries.size(); at += static_cast<size_t>(dimensions_)) {
      const auto query = queries.subspan(at, static_cast<size_t>(dimensions_));
      rows = connection_->Run(statement, {VectorText(query), absl::StrCat(top)});
      if (!rows.ok()) return rows.status();
      std::vector<Hit>& hits = results.emplace_back();
      for (int i = 0; i < rows->size(); ++i) {
        Hit hit = {.score = 0, .id = rows->At(i, 0), .chunk = 0, .text = rows->At(i, 2)};
        if (!absl::SimpleAtoi(rows->At(i, 1), &hit.chunk) ||
            !absl::SimpleAtod(rows->At(i, 3), &hit.score)) {
          return absl::DataLossError(
              absl::StrCat("table ", table_.given, ": row ", hit.id, " has no chunk or score"));
        }
        hits.push_back(std::move(hit));
      }
    }
    return results;
  }

 private:
  const std::unique_ptr<PgConnection> connection_;
  const PgTable table_;
  // Of the column: vector or halfvec.
  std::string type_;
  int dimensions_ = 0;
  std::string fingerprint_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SearchIndex>> OpenPgIndex(const std::string& url,
                                                         const std::string& table) {
  absl::StatusOr<std::unique_ptr<PgConnection>> connection = PgConnection::Open(url);
  if (!connection.ok()) return connection.status();
  absl::StatusOr<PgTable> found = FindPgTable(connection->get(), table);
  if (!found.ok()) return found.status();
  auto index = std::make_unique<PgIndex>(*std::move(connection), *std::move(found));
  if (absl::Status status = index->ReadMeta(); !status.ok()) return status;
  return index;
}

}  // namespace quiver::index
