#include "engine/text/unicode.h"

#include <algorithm>

namespace quiver {
namespace {

namespace data = unicode_data;

// Hangul by arithmetic (The Unicode Standard, section 3.12).
constexpr uint32_t kSBase = 0xAC00, kLBase = 0x1100, kVBase = 0x1161, kTBase = 0x11A7;
constexpr uint32_t kLCount = 19, kVCount = 21, kTCount = 28;
constexpr uint32_t kSCount = kLCount * kVCount * kTCount;

int CombiningRank(uint32_t c) { return UnicodeRecord(c).combining_rank; }

// What `first` and `second` compose to, or 0.
uint32_t Compose(uint32_t first, uint32_t second) {
  if (!(UnicodeFlags(second) & kComposesAsSecond)) return 0;
  if (first - kLBase < kLCount && second - kVBase < kVCount) {
    return kSBase + ((first - kLBase) * kVCount + second - kVBase) * kTCount;
  }
  if (first - kSBase < kSCount && (first - kSBase) % kTCount == 0 &&
      second - (kTBase + 1) < kTCount - 1) {
    return first + second - kTBase;
  }
  const uint64_t key = static_cast<uint64_t>(first) << 32 | second;
  const uint64_t* end = data::kCompositionKeys + data::kCompositionCount;
  const uint64_t* found = std::lower_bound(data::kCompositionKeys, end, key);
  if (found == end || *found != key) return 0;
  return data::kCompositions[found - data::kCompositionKeys];
}

// Canonical order over all of `text`.
void Reorder(std::vector<uint32_t>* text) {
  uint32_t* const end = text->data() + text->size();
  uint32_t* p = text->data();
  while (p != end) {
    uint32_t* marks_end = p;
    while (marks_end != end && CombiningRank(*marks_end) != 0) ++marks_end;
    if (marks_end - p > 1) SortCombiningMarks(p, marks_end);
    p = marks_end == end ? end : marks_end + 1;
  }
}

// Composes a canonically ordered decomposition in place (UAX 15).
void ComposeAll(std::vector<uint32_t>* text) {
  constexpr size_t kNone = static_cast<size_t>(-1);
  size_t size = 0, starter = kNone;
  int last_rank = 0;
  for (const uint32_t c : *text) {
    const int rank = CombiningRank(c);
    const bool blocked =
        starter == kNone || (last_rank == 0 ? starter + 1 != size : last_rank >= rank);
    if (!blocked) {
      if (const uint32_t whole = Compose((*text)[starter], c)) {
        (*text)[starter] = whole;
        continue;
      }
    }
    if (rank == 0) starter = size;
    last_rank = rank;
    (*text)[size++] = c;
  }
  text->resize(size);
}

}  // namespace

uint32_t PreviousCodePoint(const char* p) {
  do {
    --p;
  } while (IsContinuationByte(*p));
  return NextCodePoint(p);
}

void AppendUtf8(uint32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    const char bytes[] = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
    out->append(bytes, 2);
  } else if (c < 0x10000) {
    const char bytes[] = {static_cast<char>(0xE0 | c >> 12),
                          static_cast<char>(0x80 | (c >> 6 & 0x3F)),
                          static_cast<char>(0x80 | (c & 0x3F))};
    out->append(bytes, 3);
  } else {
    const char bytes[] = {
        static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 0x3F)),
        static_cast<char>(0x80 | (c >> 6 & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
    out->append(bytes, 4);
  }
}

void AppendDecomposition(uint32_t c, std::vector<uint32_t>* out) {
  if (!(UnicodeFlags(c) & kDecomposes)) {
    out->push_back(c);
    return;
  }
  if (c - kSBase < kSCount) {
    const uint32_t s = c - kSBase;
    out->push_back(kLBase + s / (kVCount * kTCount));
    out->push_back(kVBase + s % (kVCount * kTCount) / kTCount);
    if (s % kTCount != 0) out->push_back(kTBase + s % kTCount);
    return;
  }
  const uint32_t* end = data::kDecompositionKeys + data::kDecompositionCount;
  const auto i = std::lower_bound(data::kDecompositionKeys, end, c) - data::kDecompositionKeys;
  out->insert(out->end(), data::kDecompositionPool + data::kDecompositionStarts[i],
              data::kDecompositionPool + data::kDecompositionStarts[i + 1]);
}

void AppendLower(uint32_t c, std::string* out) {
  if (!(UnicodeFlags(c) & kHasLower)) {
    AppendUtf8(c, out);
    return;
  }
  const uint32_t* end = data::kLowerKeys + data::kLowerCount;
  const auto i = std::lower_bound(data::kLowerKeys, end, c) - data::kLowerKeys;
  for (int j = data::kLowerStarts[i]; j < data::kLowerStarts[i + 1]; ++j) {
    AppendUtf8(data::kLowerPool[j], out);
  }
}

void SortCombiningMarks(uint32_t* begin, uint32_t* end) {
  std::stable_sort(begin, end,
                   [](uint32_t a, uint32_t b) { return CombiningRank(a) < CombiningRank(b); });
}

absl::string_view NormalizeNfc(absl::string_view text, std::string* scratch) {
  const char* const end = text.data() + text.size();
  // Up to `copied` the result is in *scratch; `part` begins the latest code point that a
  // normalization may begin with.
  const char* copied = text.data();
  const char* part = text.data();
  const char* p = text.data();
  std::vector<uint32_t> points;
  scratch->clear();
  while (p != end) {
    if (static_cast<unsigned char>(*p) < 0x80) {
      part = p++;
      continue;
    }
    const char* const begin = p;
    if (UnicodeFlags(NextCodePoint(p)) & kNfcInert) {
      part = begin;
      continue;
    }
    // Normalize from `part` up to the next inert code point.
    const char* stop = p;
    while (stop != end) {
      const char* next = stop;
      if (UnicodeFlags(NextCodePoint(next)) & kNfcInert) break;
      stop = next;
    }
    points.clear();
    for (const char* q = part; q != stop;) AppendDecomposition(NextCodePoint(q), &points);
    Reorder(&points);
    ComposeAll(&points);
    scratch->append(copied, part);
    for (const uint32_t c : points) AppendUtf8(c, scratch);
    copied = part = p = stop;
  }
  if (copied == text.data()) return text;
  scratch->append(copied, end);
  return *scratch;
}

}  // namespace quiver
