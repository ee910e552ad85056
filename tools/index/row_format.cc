#include "tools/index/row_format.h"

#include <charconv>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace quiver::index {
namespace {

using client::ElementType;

constexpr std::pair<const char*, RowFormat> kEndings[] = {
    {".npy", RowFormat::kNpy},     {".fbin", RowFormat::kFbin},   {".f16bin", RowFormat::kF16bin},
    {".i8bin", RowFormat::kI8bin}, {".fvecs", RowFormat::kFvecs}, {".jsonl", RowFormat::kJsonl}};

// Room for any shape, and a multiple of 64 as the format wants.
constexpr size_t kNpyHeaderBytes = 128;

// NumPy's format 1.0: a magic string, the version, the header's length in two little-endian bytes,
// and a Python dictionary padded with spaces.
std::string NpyHeader(const IndexSpace& space, uint64_t rows) {
  const char* descr = "<f4";
  int columns = space.dimensions;
  if (space.type == ElementType::kFloat16) descr = "<f2";
  if (space.type == ElementType::kInt8) descr = "|i1";
  if (space.type == ElementType::kBinary) {
    descr = "|u1";
    columns = (columns + 7) / 8;
  }
  std::string header("\x93NUMPY\x01\x00", 8);
  const size_t length = kNpyHeaderBytes - header.size() - 2;
  header.push_back(static_cast<char>(length & 0xFF));
  header.push_back(static_cast<char>(length >> 8));
  absl::StrAppend(&header, "{'descr': '", descr, "', 'fortran_order': False, 'shape': (", rows,
                  ", ", columns, "), }");
  header.resize(kNpyHeaderBytes - 1, ' ');
  header.push_back('\n');
  return header;
}

void AppendUint32(uint32_t value, std::string* out) {
  for (int shift = 0; shift < 32; shift += 8) out->push_back(static_cast<char>(value >> shift));
}

template <typename T>
void AppendNumbers(const std::vector<T>& values, std::string* out) {
  char before = '[';
  for (const T value : values) {
    out->push_back(before);
    // The longest float is "-1.17549435e-38".
    char number[32];
    out->append(number, std::to_chars(number, number + sizeof(number), value).ptr);
    before = ',';
  }
  out->push_back(']');
}

// Everything but the closing brace.
void AppendRowNames(const IndexRow& row, bool with_text, std::string* out) {
  absl::StrAppend(out, "{\"id\":", QuotedJson(row.id), ",\"chunk\":", row.chunk,
                  ",\"begin\":", row.begin, ",\"end\":", row.end);
  if (with_text) absl::StrAppend(out, ",\"text\":", QuotedJson(row.text));
}

void AppendJsonRow(const IndexRow& row, bool with_text, std::string* out) {
  const client::Embedding& embedding = *row.embedding;
  AppendRowNames(row, with_text, out);
  absl::StrAppend(out, ",\"embedding\":");
  if (embedding.type == ElementType::kInt8) {
    const std::vector<int> values(
        reinterpret_cast<const int8_t*>(embedding.data.data()),
        reinterpret_cast<const int8_t*>(embedding.data.data()) + embedding.data.size());
    AppendNumbers(values, out);
    absl::StrAppend(out, ",\"scale\":");
    char number[32];
    out->append(number, std::to_chars(number, number + sizeof(number), embedding.scale).ptr);
  } else if (embedding.type == ElementType::kBinary) {
    const std::vector<int> values(
        reinterpret_cast<const uint8_t*>(embedding.data.data()),
        reinterpret_cast<const uint8_t*>(embedding.data.data()) + embedding.data.size());
    AppendNumbers(values, out);
  } else {
    AppendNumbers(embedding.Floats(), out);
  }
  absl::StrAppend(out, ",\"tokens\":", embedding.token_count, "}\n");
}

}  // namespace

std::optional<RowFormat> FormatOfFile(const std::string& path) {
  for (const auto& [ending, format] : kEndings) {
    if (absl::EndsWith(path, ending)) return format;
  }
  return std::nullopt;
}

ElementType DefaultType(RowFormat format) {
  if (format == RowFormat::kF16bin) return ElementType::kFloat16;
  if (format == RowFormat::kI8bin) return ElementType::kInt8;
  return ElementType::kFloat32;
}

absl::Status CheckType(RowFormat format, ElementType type) {
  if (format == RowFormat::kJsonl || type == DefaultType(format)) return absl::OkStatus();
  if (format == RowFormat::kNpy && type != ElementType::kBfloat16) return absl::OkStatus();
  const char* ending = "";
  for (const auto& [name, of] : kEndings) {
    if (of == format) ending = name;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(ending, " cannot hold ", TypeName(type), "; it holds ",
                   format == RowFormat::kNpy ? "float32, float16, int8 or binary"
                                             : TypeName(DefaultType(format))));
}

std::string TypeName(ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return "float32";
    case ElementType::kFloat16:
      return "float16";
    case ElementType::kBfloat16:
      return "bfloat16";
    case ElementType::kInt8:
      return "int8";
    case ElementType::kBinary:
      return "binary";
  }
  return "";
}

std::string FileHeader(RowFormat format, const IndexSpace& space, uint64_t rows) {
  if (format == RowFormat::kNpy) return NpyHeader(space, rows);
  std::string header;
  if (format != RowFormat::kFvecs && format != RowFormat::kJsonl) {
    AppendUint32(static_cast<uint32_t>(rows), &header);
    AppendUint32(static_cast<uint32_t>(space.dimensions), &header);
  }
  return header;
}

absl::Status CheckRows(RowFormat format, uint64_t rows) {
  const bool counted =
      format == RowFormat::kFbin || format == RowFormat::kF16bin || format == RowFormat::kI8bin;
  if (!counted || rows <= std::numeric_limits<uint32_t>::max()) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("a file of this format has at most ",
                                                   std::numeric_limits<uint32_t>::max(),
                                                   " rows; use .npy, or --shard"));
}

void AppendRow(RowFormat format, const IndexRow& row, bool with_text, std::string* out) {
  if (format == RowFormat::kJsonl) {
    AppendJsonRow(row, with_text, out);
    return;
  }
  if (format == RowFormat::kFvecs) {
    AppendUint32(static_cast<uint32_t>(row.embedding->dimensions), out);
  }
  out->append(row.embedding->data);
}

void AppendRowLine(const IndexRow& row, bool with_text, std::string* out) {
  AppendRowNames(row, with_text, out);
  out->append("}\n");
}

std::string QuotedJson(absl::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace quiver::index
