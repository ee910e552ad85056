#include "engine/text/json_fields.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace quiver {

using nlohmann::json;

JsonFields::JsonFields(const json& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object.is_object()) {
    status_ = absl::InvalidArgumentError(absl::StrCat(path_, " is not an object"));
  }
}

const json* JsonFields::Find(const char* name) const {
  if (!object_.is_object()) return nullptr;
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

const json* JsonFields::FindTyped(const char* name, bool (*is_type)(const json&),
                                  absl::string_view type) {
  const json* value = Find(name);
  if (value == nullptr || is_type(*value)) return value;
  if (status_.ok()) {
    status_ = absl::InvalidArgumentError(absl::StrCat(path_, ".", name, " is not ", type));
  }
  return nullptr;
}

bool JsonFields::Bool(const char* name, bool fallback) {
  const json* v = FindTyped(
      name, [](const json& j) { return j.is_boolean(); }, "true or false");
  return v == nullptr ? fallback : v->get<bool>();
}

double JsonFields::Number(const char* name, double fallback) {
  const json* v = FindTyped(
      name, [](const json& j) { return j.is_number(); }, "a number");
  return v == nullptr ? fallback : v->get<double>();
}

int64_t JsonFields::Integer(const char* name, int64_t fallback) {
  const json* v = FindTyped(
      name, [](const json& j) { return j.is_number_integer(); }, "a whole number");
  return v == nullptr ? fallback : v->get<int64_t>();
}

std::string JsonFields::String(const char* name, const std::string& fallback) {
  const json* v = FindTyped(
      name, [](const json& j) { return j.is_string(); }, "a string");
  return v == nullptr ? fallback : v->get<std::string>();
}

const json* JsonFields::Array(const char* name) {
  return FindTyped(
      name, [](const json& j) { return j.is_array(); }, "an array");
}

}  // namespace quiver
