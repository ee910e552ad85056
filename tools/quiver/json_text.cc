#include "tools/quiver/json_text.h"

#include <charconv>

#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "nlohmann/json.hpp"

namespace quiver {
namespace {

template <typename T>
void AppendNumber(T value, std::string* out) {
  // The longest float is "-1.17549435e-38", the longest int32 "-2147483648".
  char number[32];
  out->append(number, std::to_chars(number, number + sizeof(number), value).ptr);
}

template <typename T>
void AppendArray(absl::Span<const T> values, std::string* out) {
  char before = '[';
  for (const T value : values) {
    out->push_back(before);
    AppendNumber(value, out);
    before = ',';
  }
  if (values.empty()) out->push_back('[');
  out->push_back(']');
}

}  // namespace

std::string JsonString(absl::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void AppendJsonFloat(float value, std::string* out) { AppendNumber(value, out); }
void AppendJsonArray(absl::Span<const float> values, std::string* out) { AppendArray(values, out); }
void AppendJsonArray(absl::Span<const int32_t> values, std::string* out) {
  AppendArray(values, out);
}

void AppendJsonName(const InputItem& item, std::string* out) {
  if (item.id_json.empty()) {
    absl::StrAppend(out, "\"index\":", item.index);
  } else {
    absl::StrAppend(out, "\"id\":", item.id_json);
  }
}

void AppendJsonError(const InputItem& item, const absl::Status& status, std::string* out) {
  out->push_back('{');
  AppendJsonName(item, out);
  absl::StrAppend(out, ",\"error\":{\"code\":\"", absl::StatusCodeToString(status.code()),
                  "\",\"message\":", JsonString(ErrorText(status)), "}}\n");
}

std::string ErrorText(const absl::Status& status) {
  const std::string field = ErrorField(status);
  return field.empty() ? std::string(status.message())
                       : absl::StrCat(field, ": ", status.message());
}

}  // namespace quiver
