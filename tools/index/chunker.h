#ifndef QUIVER_TOOLS_INDEX_CHUNKER_H_
#define QUIVER_TOOLS_INDEX_CHUNKER_H_

#include <cstddef>
#include <functional>
#include <vector>

#include "absl/strings/string_view.h"

namespace quiver::index {

struct ChunkOptions {
  // Tokens of the text itself, without prompt and special tokens. 0: documents are not cut.
  size_t max_tokens = 0;
  // Of the end of a chunk, repeated at the beginning of the next. Less than max_tokens.
  size_t overlap_tokens = 0;
};

// Bytes [begin, end) of a text.
struct Chunk {
  size_t begin = 0;
  size_t end = 0;
};

// Counts the tokens of a text in UTF-8.
using TokenCounter = std::function<size_t(absl::string_view)>;

// Cuts `text`, valid UTF-8, into chunks of at most max_tokens, never within a character. A chunk
// ends behind the last paragraph that ends in its second half, else behind the last such sentence,
// else behind the last word that fits, else where tokens run out. Blanks around chunks belong to
// none, all other bytes to one, or two where they overlap. What overlaps begins at a sentence if
// one begins in it, else at a word. The character that has more than max_tokens alone is a chunk of
// its own. Chinese and Japanese sentences end at their own marks, and each of their characters is a
// word.
std::vector<Chunk> CutIntoChunks(absl::string_view text, const ChunkOptions& options,
                                 const TokenCounter& count_tokens);

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_CHUNKER_H_
