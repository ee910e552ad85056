#include "engine/model/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model/json_file.h"
#include "nlohmann/json.hpp"

namespace quiver {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kLengthBytes = 8;
// As the format's own library bounds it.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr int kMaxDepth = 8;

struct DTypeEntry {
  const char* name;
  DType dtype;
};
constexpr DTypeEntry kDTypes[] = {
    {"F32", DType::kF32},        {"F16", DType::kF16},        {"BF16", DType::kBF16},
    {"F8_E4M3", DType::kF8E4M3}, {"F8_E5M2", DType::kF8E5M2}, {"F64", DType::kF64},
    {"I64", DType::kI64},        {"I32", DType::kI32},        {"I16", DType::kI16},
    {"I8", DType::kI8},          {"U64", DType::kU64},        {"U32", DType::kU32},
    {"U16", DType::kU16},        {"U8", DType::kU8},          {"BOOL", DType::kBool},
};

// One file's header on its way to views.
class HeaderParser {
 public:
  HeaderParser(const std::string& file, absl::Span<const std::byte> bytes)
      : file_(file), bytes_(bytes) {}

  absl::StatusOr<std::map<std::string, TensorView>> Parse();

 private:
  absl::Status Bad(absl::string_view what) const {
    return absl::DataLossError(absl::StrCat(file_, ": ", what));
  }
  absl::Status Bad(const std::string& tensor, absl::string_view what) const {
    return Bad(absl::StrCat("tensor \"", absl::Utf8SafeCEscape(tensor), "\": ", what));
  }

  absl::StatusOr<Json> ParseJson(absl::string_view text) const;
  absl::StatusOr<TensorView> ParseTensor(const std::string& name, const Json& entry) const;
  // That the tensors cover the data from end to end, each byte once.
  absl::Status CheckRanges(const std::map<std::string, TensorView>& tensors) const;

  const std::string& file_;
  absl::Span<const std::byte> bytes_;
  // The bytes after the header.
  absl::Span<const std::byte> data_;
};

absl::StatusOr<std::map<std::string, TensorView>> HeaderParser::Parse() {
  if (bytes_.size() < kLengthBytes) {
    return Bad(absl::StrCat("has ", bytes_.size(), " bytes, too few for a safetensors file"));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::to_integer<uint64_t>(bytes_[i]) << (8 * i);
  }
  if (length > kMaxHeaderBytes || length > bytes_.size() - kLengthBytes) {
    return Bad(absl::StrCat("says that its header has ", length, " bytes; the file has ",
                            bytes_.size(), ", and ", kMaxHeaderBytes, " are allowed"));
  }
  data_ = bytes_.subspan(kLengthBytes + length);
  absl::StatusOr<Json> header = ParseJson(absl::string_view(
      reinterpret_cast<const char*>(bytes_.data()) + kLengthBytes, static_cast<size_t>(length)));
  if (!header.ok()) return header.status();

  std::map<std::string, TensorView> tensors;
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    absl::StatusOr<TensorView> tensor = ParseTensor(name, entry);
    if (!tensor.ok()) return tensor.status();
    tensors.emplace(name, *std::move(tensor));
  }
  absl::Status status = CheckRanges(tensors);
  if (!status.ok()) return status;
  return tensors;
}

absl::StatusOr<Json> HeaderParser::ParseJson(absl::string_view text) const {
  std::set<std::string> names;
  std::optional<std::string> twice;
  bool too_deep = false;
  try {
    // The parser itself would keep the last of two equal keys.
    Json header = Json::parse(text.begin(), text.end(),
                              [&](int depth, Json::parse_event_t event, Json& value) {
                                if (event == Json::parse_event_t::key && depth == 1) {
                                  const std::string& name = value.get_ref<const std::string&>();
                                  if (!names.insert(name).second) twice = name;
                                }
                                too_deep |= depth > kMaxDepth;
                                return depth <= kMaxDepth;
                              });
    if (twice) return Bad(*twice, "is in the header twice");
    if (too_deep) return Bad("the header nests too deep");
    if (!header.is_object()) return Bad("the header is not a JSON object");
    return header;
  } catch (const Json::exception& e) {
    return Bad(absl::StrCat("the header is not valid JSON: ", e.what()));
  }
}

absl::StatusOr<TensorView> HeaderParser::ParseTensor(const std::string& name,
                                                     const Json& entry) const {
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets")) {
    return Bad(name, "must be an object with dtype, shape and data_offsets");
  }
  TensorView tensor;
  tensor.file = file_;

  const Json& dtype = entry["dtype"];
  const auto known = std::find_if(std::begin(kDTypes), std::end(kDTypes),
                                  [&](const DTypeEntry& e) { return dtype == e.name; });
  if (known == std::end(kDTypes)) {
    return Bad(name, absl::StrCat("has the unknown dtype ", Preview(dtype)));
  }
  tensor.dtype = known->dtype;

  const Json& shape = entry["shape"];
  if (!shape.is_array()) {
    return Bad(name, absl::StrCat("shape must be an array, is ", Preview(shape)));
  }
  uint64_t size = DTypeSize(tensor.dtype);
  for (const Json& extent : shape) {
    if (!extent.is_number_unsigned() || extent.get<uint64_t>() > INT64_MAX ||
        __builtin_mul_overflow(size, extent.get<uint64_t>(), &size)) {
      return Bad(name, absl::StrCat("has the impossible shape ", Preview(shape)));
    }
    tensor.shape.push_back(extent.get<int64_t>());
  }

  const Json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    return Bad(name,
               absl::StrCat("data_offsets must be two unsigned integers, is ", Preview(offsets)));
  }
  const uint64_t begin = offsets[0].get<uint64_t>();
  const uint64_t end = offsets[1].get<uint64_t>();
  if (begin > end || end > data_.size()) {
    return Bad(name, absl::StrCat("its range [", begin, ", ", end, ") leaves the file, which has ",
                                  data_.size(), " bytes of data; is it truncated?"));
  }
  if (end - begin != size) {
    return Bad(name, absl::StrCat("shape [", absl::StrJoin(tensor.shape, ", "), "] of ",
                                  DTypeName(tensor.dtype), " takes ", size,
                                  " bytes, its range has ", end - begin));
  }
  tensor.data = data_.data() + begin;
  tensor.size_bytes = static_cast<size_t>(size);
  return tensor;
}

absl::Status HeaderParser::CheckRanges(const std::map<std::string, TensorView>& tensors) const {
  struct Range {
    size_t begin, end;
    const std::string* name;
  };
  std::vector<Range> ranges;
  for (const auto& [name, tensor] : tensors) {
    const size_t begin = static_cast<size_t>(tensor.data - data_.data());
    ranges.push_back({begin, begin + tensor.size_bytes, &name});
  }
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  size_t covered = 0;
  for (const Range& range : ranges) {
    if (range.begin < covered) return Bad(*range.name, "overlaps another tensor");
    if (range.begin > covered) {
      return Bad(*range.name,
                 absl::StrCat(range.begin - covered, " bytes before it belong to no tensor"));
    }
    covered = range.end;
  }
  if (covered != data_.size()) {
    return Bad(absl::StrCat(data_.size() - covered, " bytes at its end belong to no tensor"));
  }
  return absl::OkStatus();
}

}  // namespace

size_t DTypeSize(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
    case DType::kU64:
      return 8;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
    case DType::kI16:
    case DType::kU16:
      return 2;
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  return 0;
}

const char* DTypeName(DType dtype) {
  for (const DTypeEntry& entry : kDTypes) {
    if (entry.dtype == dtype) return entry.name;
  }
  return "unknown";
}

absl::StatusOr<std::map<std::string, TensorView>> ParseSafetensors(
    const std::string& file, absl::Span<const std::byte> bytes) {
  return HeaderParser(file, bytes).Parse();
}

}  // namespace quiver
