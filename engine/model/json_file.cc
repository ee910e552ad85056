#include "engine/model/json_file.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace quiver {
namespace {

// Deeper than any such file; values are copied and printed recursively.
constexpr int kMaxDepth = 64;

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t max_bytes) {
  // Asked before opening: a FIFO would wait for a writer.
  std::error_code unknown;
  const std::filesystem::file_status file = std::filesystem::status(path, unknown);
  if (std::filesystem::exists(file) && !std::filesystem::is_regular_file(file)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is not a regular file"));
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    const int error = errno;
    const std::string message =
        absl::StrCat(path, ": cannot be opened: ", std::generic_category().message(error));
    return error == ENOENT || error == ENOTDIR ? absl::NotFoundError(message)
                                               : absl::InvalidArgumentError(message);
  }
  std::string bytes;
  char buffer[1 << 14];
  while (in.read(buffer, sizeof(buffer)) || in.gcount() > 0) {
    bytes.append(buffer, static_cast<size_t>(in.gcount()));
    if (static_cast<int64_t>(bytes.size()) > max_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": has more than the ", max_bytes, " bytes allowed for such a file"));
    }
  }
  if (!in.eof()) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  return bytes;
}

}  // namespace

std::string Preview(const nlohmann::ordered_json& value) {
  // A whole object would drown the message.
  if (value.is_object()) return "an object";
  std::string text =
      value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::ordered_json::error_handler_t::replace);
  constexpr size_t kMaxChars = 80;
  if (text.size() > kMaxChars) text = text.substr(0, kMaxChars) + "...";
  return text;
}

absl::StatusOr<nlohmann::ordered_json> ReadJsonValue(const std::string& path, int64_t max_bytes) {
  absl::StatusOr<std::string> bytes = ReadSmallFile(path, max_bytes);
  if (!bytes.ok()) return bytes.status();
  using Json = nlohmann::ordered_json;
  try {
    bool too_deep = false;
    Json value = Json::parse(*bytes, [&](int depth, Json::parse_event_t, Json&) {
      too_deep |= depth > kMaxDepth;
      return depth <= kMaxDepth;
    });
    if (too_deep) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": nests deeper than ", kMaxDepth, " levels"));
    }
    return value;
  } catch (const Json::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is not valid JSON: ", e.what()));
  }
}

absl::StatusOr<JsonFile> JsonFile::Read(const std::string& path, int64_t max_bytes) {
  absl::StatusOr<nlohmann::ordered_json> value = ReadJsonValue(path, max_bytes);
  if (!value.ok()) return value.status();
  if (!value->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": must hold a JSON object, holds ", Preview(*value)));
  }
  return JsonFile(path, *std::move(value));
}

absl::StatusOr<JsonFile> JsonFile::ReadIfPresent(const std::string& path) {
  absl::StatusOr<JsonFile> file = Read(path);
  if (absl::IsNotFound(file.status())) return JsonFile(path, nlohmann::ordered_json::object());
  return file;
}

const nlohmann::ordered_json* JsonFile::Find(const char* key) const {
  if (!value_.is_object()) return nullptr;
  const auto it = value_.find(key);
  return it == value_.end() || it->is_null() ? nullptr : &*it;
}

void JsonFile::Refuse(absl::StatusCode code, absl::string_view key, absl::string_view allowed,
                      const nlohmann::ordered_json& value) {
  if (!status_.ok()) return;
  status_ = absl::Status(
      code, absl::StrCat(path_, ": ", key, " must be ", allowed, ", is ", Preview(value)));
}

void JsonFile::Missing(const char* key) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat(path_, ": ", key, " is missing"));
}

int64_t JsonFile::Integer(const char* key, int64_t min, int64_t max,
                          std::optional<int64_t> fallback) {
  const nlohmann::ordered_json* field = Find(key);
  if (field == nullptr) {
    if (!fallback) Missing(key);
    return fallback.value_or(min);
  }
  if (field->is_number_unsigned()) {
    const uint64_t value = field->get<uint64_t>();
    if (value <= static_cast<uint64_t>(max) && static_cast<int64_t>(value) >= min) {
      return static_cast<int64_t>(value);
    }
  } else if (field->is_number_integer()) {
    const int64_t value = field->get<int64_t>();
    if (value >= min && value <= max) return value;
  }
  Refuse(absl::StatusCode::kInvalidArgument, key,
         absl::StrCat("an integer from ", min, " to ", max), *field);
  return min;
}

double JsonFile::Number(const char* key, double above, double max, std::optional<double> fallback) {
  const nlohmann::ordered_json* field = Find(key);
  if (field == nullptr) {
    if (!fallback) Missing(key);
    return fallback.value_or(max);
  }
  if (field->is_number()) {
    const double value = field->get<double>();
    if (std::isfinite(value) && value > above && value <= max) return value;
  }
  Refuse(absl::StatusCode::kInvalidArgument, key,
         absl::StrCat("a number above ", above, " and at most ", max), *field);
  return max;
}

bool JsonFile::Bool(const char* key, bool fallback) {
  const nlohmann::ordered_json* field = Find(key);
  if (field == nullptr) return fallback;
  if (field->is_boolean()) return field->get<bool>();
  Refuse(absl::StatusCode::kInvalidArgument, key, "true or false", *field);
  return fallback;
}

std::string JsonFile::String(const char* key, std::optional<std::string> fallback) {
  const nlohmann::ordered_json* field = Find(key);
  if (field == nullptr) {
    if (!fallback) Missing(key);
    return fallback.value_or("");
  }
  if (field->is_string()) return field->get<std::string>();
  Refuse(absl::StatusCode::kInvalidArgument, key, "a string", *field);
  return fallback.value_or("");
}

}  // namespace quiver
