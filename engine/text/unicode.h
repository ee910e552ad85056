// Unicode as the `tokenizers` wheel named in unicode_data.cc sees it, which is no one version of
// the standard: its normalizer, its regular expressions and its lower-casing each have their own.
#ifndef QUIVER_ENGINE_TEXT_UNICODE_H_
#define QUIVER_ENGINE_TEXT_UNICODE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/text/unicode_data.h"

namespace quiver {

// In the order of FLAGS in generate.py.
enum UnicodeFlag : uint16_t {
  // \p{L}, \p{N} and \s of a split pattern.
  kLetter = 1 << 0,
  kNumber = 1 << 1,
  kSpace = 1 << 2,
  // \w and \s next to an added token.
  kWord = 1 << 3,
  kAddedTokenSpace = 1 << 4,
  // As BertNormalizer and BertPreTokenizer class them.
  kBertSpace = 1 << 5,
  kBertControl = 1 << 6,
  kBertChinese = 1 << 7,
  kBertPunctuation = 1 << 8,
  kNonspacingMark = 1 << 9,
  kHasLower = 1 << 10,
  // NFD changes it (Hangul syllables included).
  kDecomposes = 1 << 11,
  // May compose with what is before it.
  kComposesAsSecond = 1 << 12,
  // A text of only these is its own NFC, and NFC of a text may be taken in parts that begin with
  // one.
  kNfcInert = 1 << 13,
};

inline const unicode_data::CodePointRecord& UnicodeRecord(uint32_t c) {
  namespace data = unicode_data;
  const int block = data::kBlockOf[c / data::kBlockSize];
  return data::kRecords[data::kRecordOf[block * data::kBlockSize + c % data::kBlockSize]];
}

inline uint16_t UnicodeFlags(uint32_t c) { return UnicodeRecord(c).flags; }

// Of the bytes of UTF-8: a character of one byte; any byte of a character but its first.
inline bool IsAsciiByte(char c) { return static_cast<unsigned char>(c) < 0x80; }
inline bool IsContinuationByte(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Decodes the code point at `p`, which must begin one of valid UTF-8, and moves `p` behind it.
inline uint32_t NextCodePoint(const char*& p) {
  const auto byte = [&p](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(p[i])); };
  const uint32_t first = byte(0);
  if (first < 0x80) {
    p += 1;
    return first;
  }
  if (first < 0xE0) {
    const uint32_t c = (first & 0x1F) << 6 | (byte(1) & 0x3F);
    p += 2;
    return c;
  }
  if (first < 0xF0) {
    const uint32_t c = (first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    p += 3;
    return c;
  }
  const uint32_t c =
      (first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  p += 4;
  return c;
}

// The code point that ends before `p`, which must follow one of valid UTF-8.
uint32_t PreviousCodePoint(const char* p);

void AppendUtf8(uint32_t c, std::string* out);

// Appends the full canonical decomposition of `c`, unordered.
void AppendDecomposition(uint32_t c, std::vector<uint32_t>* out);

// Appends the lower case of `c`, which is `c` itself for most.
void AppendLower(uint32_t c, std::string* out);

// Puts the combining marks of a run between two starters into canonical order, stable.
void SortCombiningMarks(uint32_t* begin, uint32_t* end);

// Normalization form C of valid UTF-8. Returns `text` itself if that is in it already, as nearly
// all text is, else a view of *scratch.
absl::string_view NormalizeNfc(absl::string_view text, std::string* scratch);

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_UNICODE_H_
