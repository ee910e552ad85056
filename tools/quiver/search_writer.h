// What `quiver search` shows.
#ifndef QUIVER_TOOLS_QUIVER_SEARCH_WRITER_H_
#define QUIVER_TOOLS_QUIVER_SEARCH_WRITER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "tools/index/search_index.h"
#include "tools/quiver/input_source.h"

namespace quiver {

enum class SearchFormat {
  // Lines for people: rank, score, id, chunk, and the beginning of the text.
  kText,
  // An object a query: {"id":"q1","hits":[{"rank":1,"score":0.5,"id":"a","chunk":0,"text":"..."}]}
  kJson,
  // TREC's run: "q1 Q0 a 1 0.5 quiver", a line a document, ranked by its best chunk.
  kTrec,
};

// Columns of the terminal that is standard output; 0 if it is none.
int TerminalColumns();

// `text` in one line of at most `columns` columns, an ellipsis at its end if it was longer; all of
// it if `columns` is 0. Control characters become blanks.
std::string OneLine(absl::string_view text, int columns);

// The hits of one query. INVALID_ARGUMENT names an id that kTrec cannot hold as it has a blank.
absl::StatusOr<std::string> FormatHits(SearchFormat format, const InputItem& query,
                                       const std::vector<index::Hit>& hits, int columns);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_SEARCH_WRITER_H_
