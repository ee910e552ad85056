// An index to ask: what `quiver index` wrote.
#ifndef QUIVER_TOOLS_INDEX_SEARCH_INDEX_H_
#define QUIVER_TOOLS_INDEX_SEARCH_INDEX_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cpu/thread_pool.h"

namespace quiver::index {

// A row that was found.
struct Hit {
  // The cosine.
  double score = 0;
  std::string id;
  uint32_t chunk = 0;
  // Empty if the index was written without texts.
  std::string text;
};

// Not thread-safe. Errors name the file, or the table.
class SearchIndex {
 public:
  virtual ~SearchIndex() = default;

  // Queries must be of this vector space.
  virtual const std::string& fingerprint() const = 0;
  virtual int dimensions() const = 0;

  // The `top` rows nearest to each of `queries` [n, dimensions], best first.
  virtual absl::StatusOr<std::vector<std::vector<Hit>>> Search(absl::Span<const float> queries,
                                                               int top) = 0;
};

// A file of vectors, with out.rows.jsonl and out.meta.json beside it; every row is looked at.
absl::StatusOr<std::unique_ptr<SearchIndex>> OpenFileIndex(const std::string& path,
                                                           cpu::ThreadPool* pool);

// A table in PostgreSQL with pgvector; its index, if it has one, decides how exact the answer is.
absl::StatusOr<std::unique_ptr<SearchIndex>> OpenPgIndex(const std::string& url,
                                                         const std::string& table);

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_SEARCH_INDEX_H_
