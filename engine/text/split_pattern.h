// The regular expressions by which byte-level tokenizers split text, as hand-written matchers.
#ifndef QUIVER_ENGINE_TEXT_SPLIT_PATTERN_H_
#define QUIVER_ENGINE_TEXT_SPLIT_PATTERN_H_

#include "absl/strings/string_view.h"

namespace quiver {

// Known patterns. Each matches some non-empty piece at every position, so that its matches cover
// any text without a gap.
enum class SplitPattern {
  // The whole text is one piece.
  kNone,
  // What ByteLevel splits by itself if use_regex is set.
  kGpt2,
  // (?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  kQwen2,
  // The same with up to three digits a piece.
  kLlama3,
};

// False if `regex` is not, character for character, one of the patterns above.
bool FindSplitPattern(absl::string_view regex, SplitPattern* pattern);

// End of the match of `pattern` at `p`, where p < end and the text is valid UTF-8. Takes as many
// steps as the match has bytes, plus what follows of a run of white space.
const char* MatchSplit(SplitPattern pattern, const char* p, const char* end);

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_SPLIT_PATTERN_H_
