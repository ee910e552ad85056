#include "engine/text/split_pattern.h"

#include <array>
#include <cstdint>

#include "engine/text/unicode.h"

namespace quiver {
namespace {

constexpr absl::string_view kQwen2Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kLlama3Regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// The classes of a code point that the patterns tell apart; 0 is anything else.
constexpr int kClasses = kLetter | kNumber | kSpace;

constexpr std::array<uint8_t, 128> MakeAsciiClasses() {
  std::array<uint8_t, 128> classes{};
  for (int c = 0; c < 128; ++c) {
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) classes[c] = kLetter;
    if (c >= '0' && c <= '9') classes[c] = kNumber;
    if (c == ' ' || (c >= '\t' && c <= '\r')) classes[c] = kSpace;
  }
  return classes;
}
constexpr std::array<uint8_t, 128> kAsciiClasses = MakeAsciiClasses();

// Class of the code point at `p`, which moves behind it.
inline int NextClass(const char*& p) {
  const unsigned char c = static_cast<unsigned char>(*p);
  if (c < 0x80) {
    ++p;
    return kAsciiClasses[c];
  }
  return UnicodeFlags(NextCodePoint(p)) & kClasses;
}

// End of the longest run of code points of class `wanted` from `p`.
inline const char* SkipClass(int wanted, const char* p, const char* end) {
  while (p != end) {
    const char* next = p;
    if (NextClass(next) != wanted) break;
    p = next;
  }
  return p;
}

inline bool IsNewline(char c) { return c == '\n' || c == '\r'; }

// End of 's, 't, 're, 've, 'm, 'll or 'd at `p`, or null. Folding case, U+017F (long s) is an s.
const char* MatchContraction(const char* p, const char* end, bool ignore_case) {
  const auto lower = [&](char c) {
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 'a' - 'A') : c;
  };
  if (end - p < 2 || *p != '\'') return nullptr;
  const char first = lower(p[1]);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return p + 2;
  if (end - p < 3) return nullptr;
  const char second = lower(p[2]);
  if (((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l')) {
    return p + 3;
  }
  if (ignore_case && p[1] == '\xC5' && p[2] == '\xBF') return p + 3;
  return nullptr;
}

// White space from `p` on: \s+(?!\S)|\s+, before them \s*[\r\n]+ if `newlines`.
const char* MatchSpace(const char* p, const char* end, bool newlines) {
  const char* last = p;
  const char* after_newline = nullptr;
  const char* q = p;
  while (q != end) {
    const char* next = q;
    if (NextClass(next) != kSpace) break;
    if (IsNewline(*q)) after_newline = next;
    last = q;
    q = next;
  }
  if (newlines && after_newline != nullptr) return after_newline;
  // Before other text the last white space is left to it, unless it is the only one.
  return q == end || last == p ? q : last;
}

const char* MatchGpt2(const char* p, const char* end) {
  if (const char* q = MatchContraction(p, end, false)) return q;
  const char* q = p;
  int c = NextClass(q);
  if (*p == ' ' && q != end) {
    const char* next = q;
    const int after = NextClass(next);
    if (after != kSpace) {
      c = after;
      q = next;
    }
  }
  return c == kSpace ? MatchSpace(p, end, false) : SkipClass(c, q, end);
}

const char* MatchQwen2(const char* p, const char* end, int max_digits) {
  if (*p == '\'') {
    if (const char* q = MatchContraction(p, end, true)) return q;
  }
  const char* q = p;
  const int c = NextClass(q);
  if (c == kLetter) return SkipClass(kLetter, q, end);
  if (c == kNumber) {
    for (int i = 1; i < max_digits && q != end; ++i) {
      const char* next = q;
      if (NextClass(next) != kNumber) break;
      q = next;
    }
    return q;
  }
  // White space or another symbol, which letters may follow.
  if (q != end && !IsNewline(*p)) {
    const char* next = q;
    const int after = NextClass(next);
    if (after == kLetter) return SkipClass(kLetter, next, end);
    if (*p == ' ' && after == 0) {
      q = SkipClass(0, next, end);
      while (q != end && IsNewline(*q)) ++q;
      return q;
    }
  }
  if (c == kSpace) return MatchSpace(p, end, true);
  q = SkipClass(0, q, end);
  while (q != end && IsNewline(*q)) ++q;
  return q;
}

}  // namespace

bool FindSplitPattern(absl::string_view regex, SplitPattern* pattern) {
  if (regex == kQwen2Regex) {
    *pattern = SplitPattern::kQwen2;
  } else if (regex == kLlama3Regex) {
    *pattern = SplitPattern::kLlama3;
  } else if (regex == kGpt2Regex) {
    *pattern = SplitPattern::kGpt2;
  } else {
    return false;
  }
  return true;
}

const char* MatchSplit(SplitPattern pattern, const char* p, const char* end) {
  switch (pattern) {
    case SplitPattern::kNone:
      break;
    case SplitPattern::kGpt2:
      return MatchGpt2(p, end);
    case SplitPattern::kQwen2:
      return MatchQwen2(p, end, 1);
    case SplitPattern::kLlama3:
      return MatchQwen2(p, end, 3);
  }
  return end;
}

}  // namespace quiver
