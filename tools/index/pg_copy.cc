// PostgreSQL's binary COPY and pgvector's binary forms, all numbers big-endian. COPY: a signature,
// flags and the length of an extension, both 0; a row is an int16 number of fields, each an int32
// length and its bytes; an int16 -1 ends. vector and halfvec: int16 dimensions, int16 0, elements.
#include <algorithm>

#include "tools/index/pg_table.h"

namespace quiver::index {
namespace {

constexpr char kHeader[] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0";

template <typename Integer>
void AppendBigEndian(Integer value, std::string* out) {
  for (int shift = 8 * (static_cast<int>(sizeof(value)) - 1); shift >= 0; shift -= 8) {
    out->push_back(static_cast<char>(value >> shift));
  }
}

void AppendLength(size_t bytes, std::string* out) {
  AppendBigEndian(static_cast<uint32_t>(bytes), out);
}

void AppendText(absl::string_view text, std::string* out) {
  AppendLength(text.size(), out);
  const size_t begin = out->size();
  out->append(text.data(), text.size());
  std::replace(out->begin() + static_cast<std::ptrdiff_t>(begin), out->end(), '\0', ' ');
}

template <typename Integer>
void AppendNumber(Integer value, std::string* out) {
  AppendLength(sizeof(value), out);
  AppendBigEndian(value, out);
}

void AppendVector(const client::Embedding& embedding, std::string* out) {
  const std::string& data = embedding.data;
  const size_t width = embedding.type == client::ElementType::kFloat16 ? 2 : 4;
  AppendLength(4 + data.size(), out);
  AppendBigEndian(static_cast<uint16_t>(embedding.dimensions), out);
  AppendBigEndian(uint16_t{0}, out);
  for (size_t i = 0; i < data.size(); i += width) {
    for (size_t byte = width; byte-- > 0;) out->push_back(data[i + byte]);
  }
}

}  // namespace

absl::string_view PgCopyHeader() { return {kHeader, 19}; }
absl::string_view PgCopyEnd() { return "\377\377"; }

void AppendPgRow(const IndexRow& row, std::string* out) {
  AppendBigEndian(uint16_t{6}, out);
  AppendText(row.id, out);
  AppendNumber(row.chunk, out);
  AppendNumber(row.begin, out);
  AppendNumber(row.end, out);
  AppendText(row.text, out);
  AppendVector(*row.embedding, out);
}

}  // namespace quiver::index
