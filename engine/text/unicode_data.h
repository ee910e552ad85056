// The generated tables behind unicode.h; see tools/unicode/generate.py.
#ifndef QUIVER_ENGINE_TEXT_UNICODE_DATA_H_
#define QUIVER_ENGINE_TEXT_UNICODE_DATA_H_

#include <cstdint>

namespace quiver::unicode_data {

struct CodePointRecord {
  uint16_t flags;
  // 0 for a starter, else the rank of the canonical combining class among all classes.
  uint8_t combining_rank;
};

inline constexpr int kBlockSize = 128;

// Record of code point c: kRecords[kRecordOf[kBlockOf[c / kBlockSize] * kBlockSize + c %
// kBlockSize]].
extern const uint16_t kBlockOf[];
extern const uint8_t kRecordOf[];
extern const CodePointRecord kRecords[];

// Full canonical decompositions but for Hangul, and lower-case mappings: of kXKeys[i], ascending,
// the code points kXPool[kXStarts[i], kXStarts[i + 1]).
extern const uint32_t kDecompositionKeys[];
extern const uint16_t kDecompositionStarts[];
extern const uint32_t kDecompositionPool[];
extern const int kDecompositionCount;
extern const uint32_t kLowerKeys[];
extern const uint16_t kLowerStarts[];
extern const uint32_t kLowerPool[];
extern const int kLowerCount;

// Primary composites but for Hangul: first << 32 | second, ascending, and what they make.
extern const uint64_t kCompositionKeys[];
extern const uint32_t kCompositions[];
extern const int kCompositionCount;

}  // namespace quiver::unicode_data

#endif  // QUIVER_ENGINE_TEXT_UNICODE_DATA_H_
