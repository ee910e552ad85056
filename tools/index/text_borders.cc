#include "tools/index/text_borders.h"

#include <algorithm>
#include <cstdint>

namespace quiver::index {
namespace {

struct Character {
  size_t begin = 0;
  uint32_t code = 0;
};

std::vector<Character> Characters(absl::string_view text) {
  std::vector<Character> characters;
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const size_t length = byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
    uint32_t code = length == 1 ? byte : byte & (0x7Fu >> length);
    for (size_t j = 1; j < length && i + j < text.size(); ++j) {
      code = (code << 6) | (static_cast<unsigned char>(text[i + j]) & 0x3Fu);
    }
    characters.push_back({i, code});
    i += length;
  }
  return characters;
}

bool IsBlank(uint32_t code) {
  return code == ' ' || (code >= '\t' && code <= '\r') || code == 0xA0 || code == 0x3000 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029;
}

// Han, Hiragana, Katakana and what stands between them: scripts that put no blanks between words.
bool IsIdeographic(uint32_t code) {
  return (code >= 0x3001 && code <= 0x30FF) || (code >= 0x3400 && code <= 0x9FFF) ||
         (code >= 0xF900 && code <= 0xFAFF) || (code >= 0xFF01 && code <= 0xFF60) ||
         (code >= 0x20000 && code <= 0x323AF);
}

// Ends a sentence without a blank behind it: 。 ！ ？ ｡
bool EndsSentenceAlone(uint32_t code) {
  return code == 0x3002 || code == 0xFF01 || code == 0xFF1F || code == 0xFF61;
}

bool EndsSentenceBeforeBlank(uint32_t code) {
  return code == '.' || code == '!' || code == '?' || code == 0x2026;
}

// Closes what a sentence stands in: " ' ) ] and ” ’ 」 』 ） 】 》.
bool Closes(uint32_t code) {
  constexpr uint32_t kClosing[] = {'"',    '\'',   ')',    ']',    0x201D, 0x2019,
                                   0x300D, 0x300F, 0xFF09, 0x3011, 0x300B};
  return std::find(std::begin(kClosing), std::end(kClosing), code) != std::end(kClosing);
}

// What the blanks [begin, end) are, behind a text whose last character but closing ones is `last`.
BorderKind KindOfBlanks(const std::vector<Character>& characters, size_t begin, size_t end,
                        uint32_t last) {
  size_t lines = 0;
  for (size_t i = begin; i < end; ++i) {
    lines += characters[i].code == '\n' || characters[i].code == 0x2028 ? 1 : 0;
    lines += characters[i].code == 0x2029 ? 2 : 0;
  }
  if (lines >= 2) return BorderKind::kParagraph;
  if (lines == 1 || EndsSentenceBeforeBlank(last) || EndsSentenceAlone(last)) {
    return BorderKind::kSentence;
  }
  return BorderKind::kWord;
}

// Between two characters that are no blanks.
BorderKind KindBetween(uint32_t before, uint32_t after, uint32_t last) {
  if (EndsSentenceAlone(last) && !Closes(after) && !EndsSentenceAlone(after)) {
    return BorderKind::kSentence;
  }
  // Marks stay with the word that they close.
  if (Closes(after) || EndsSentenceAlone(after) || after == 0x3001 || after == 0xFF0C) {
    return BorderKind::kCharacter;
  }
  return IsIdeographic(before) || IsIdeographic(after) ? BorderKind::kWord : BorderKind::kCharacter;
}

}  // namespace

std::vector<Border> FindBorders(absl::string_view text) {
  const std::vector<Character> characters = Characters(text);
  std::vector<Border> borders = {{0, BorderKind::kParagraph}};
  // The last character that neither closes nor is a blank.
  uint32_t last = 0;
  for (size_t i = 0; i < characters.size();) {
    size_t end = i;
    while (end < characters.size() && IsBlank(characters[end].code)) ++end;
    if (end > i) {
      const BorderKind kind = KindOfBlanks(characters, i, end, last);
      if (i > 0) borders.push_back({characters[i].begin, kind});
      for (++i; i <= end && i < characters.size(); ++i) {
        borders.push_back({characters[i].begin, kind});
      }
      i = end;
      last = 0;
    } else if (i > 0 && !IsBlank(characters[i - 1].code)) {
      borders.push_back(
          {characters[i].begin, KindBetween(characters[i - 1].code, characters[i].code, last)});
    }
    if (i == characters.size()) break;
    if (!Closes(characters[i].code)) last = characters[i].code;
    ++i;
  }
  if (!text.empty()) borders.push_back({text.size(), BorderKind::kParagraph});
  return borders;
}

}  // namespace quiver::index
