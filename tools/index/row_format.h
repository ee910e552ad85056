// The formats of files of vectors.
#ifndef QUIVER_TOOLS_INDEX_ROW_FORMAT_H_
#define QUIVER_TOOLS_INDEX_ROW_FORMAT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "tools/index/index_row.h"

namespace quiver::index {

enum class RowFormat {
  // NumPy's: float32, float16, int8, or the packed bytes of binary as uint8; [rows, dimensions].
  kNpy,
  // uint32 rows, uint32 dimensions, then the rows: float32, float16 and int8 elements.
  kFbin,
  kF16bin,
  kI8bin,
  // Each row a uint32 dimensions, then float32.
  kFvecs,
  // An object a line: id, chunk, begin, end, text, embedding, tokens.
  kJsonl,
};

// By the name's ending: .npy, .fbin, .f16bin, .i8bin, .fvecs, .jsonl.
std::optional<RowFormat> FormatOfFile(const std::string& path);

// The type of elements that `format` has if no other is asked for.
client::ElementType DefaultType(RowFormat format);

// INVALID_ARGUMENT if `format` cannot hold elements of `type`; it names both and what it can hold.
absl::Status CheckType(RowFormat format, client::ElementType type);

// "float16".
std::string TypeName(client::ElementType type);

// What stands before the rows; as long for any number of rows.
std::string FileHeader(RowFormat format, const IndexSpace& space, uint64_t rows);

// RESOURCE_EXHAUSTED if a file of this format cannot say that it has `rows` rows.
absl::Status CheckRows(RowFormat format, uint64_t rows);

// Appends the bytes of a row. `with_text` is of kJsonl.
void AppendRow(RowFormat format, const IndexRow& row, bool with_text, std::string* out);

// Appends the line that says what a row of vectors is: {"id":"a","chunk":0,"begin":0,"end":3,
// "text":"..."}, the text only `with_text`.
void AppendRowLine(const IndexRow& row, bool with_text, std::string* out);

// `text` with its quotes. Bytes that are not UTF-8 become U+FFFD.
std::string QuotedJson(absl::string_view text);

}  // namespace quiver::index

#endif  // QUIVER_TOOLS_INDEX_ROW_FORMAT_H_
