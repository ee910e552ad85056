#ifndef QUIVER_TOOLS_INDEX_TEXT_BORDERS_H_
#define QUIVER_TOOLS_INDEX_TEXT_BORDERS_H_

#include <cstddef>
#include <vector>

#include "absl/strings/string_view.h"

namespace quiver::index {

// How good a place to cut is, from worst to best.
enum class BorderKind { kCharacter, kWord, kSentence, kParagraph };

// A place between two bytes of a text.
struct Border {
  size_t at = 0;
  BorderKind kind = BorderKind::kCharacter;
};

// The borders between the characters of `text`, valid UTF-8, in order; its two ends are paragraphs.
// One between two blanks is the best that the blanks are. A paragraph ends at an empty line, a
// sentence at . ! ? before a blank, at 。 ！ ？ ｡ and at the end of a line, with the quotes
// and brackets that close behind it.
std::vector<Border> FindBorders(absl::string_view text);

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_TEXT_BORDERS_H_
