// What an indexing run produces: rows, rejects, and how far it has come.
#ifndef QUIVER_TOOLS_INDEX_INDEX_ROW_H_
#define QUIVER_TOOLS_INDEX_INDEX_ROW_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "quiver/client_types.h"

namespace quiver::index {

// One vector and what it stands for. Views are the caller's, and last for the call.
struct IndexRow {
  // The document's own name; an integer as its decimal digits.
  absl::string_view id;
  // Counted from 0 within the document.
  uint32_t chunk = 0;
  // Bytes [begin, end) of the document's text, which `text` is.
  uint64_t begin = 0;
  uint64_t end = 0;
  absl::string_view text;
  // Packed as it came from the server; all rows of a run have one type and one length.
  const client::Embedding* embedding = nullptr;
};

// A document, or a chunk of one, that has no vector and never will.
struct Rejected {
  // Empty if the record has no readable name.
  std::string id;
  uint32_t chunk = 0;
  // Where it stands in the input: "line 7", "record 3", a path.
  std::string place;
  // What is wrong with it: the field (empty if none is to blame), the status code's name, a reason.
  std::string field;
  std::string code;
  std::string reason;
};

// What a run is: it may be resumed only as the same. A flat JSON object of everything that decides
// the output: input, flags, vector space.
using RunIdentity = std::string;

// A place in the input up to which everything is in the output.
struct Checkpoint {
  // Records of the input that were taken, rejected ones and those of other shards included.
  uint64_t documents = 0;
  uint64_t rows = 0;
  uint64_t rejects = 0;
  RunIdentity run;
};

// What all rows have in common.
struct IndexSpace {
  std::string model;
  client::VectorSpace space;
  int dimensions = 0;
  client::ElementType type = client::ElementType::kFloat32;
};

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_INDEX_ROW_H_
