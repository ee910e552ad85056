// Optional fields of a JSON object, with the first wrong type remembered.
#ifndef QUIVER_ENGINE_TEXT_JSON_FIELDS_H_
#define QUIVER_ENGINE_TEXT_JSON_FIELDS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace quiver {

// A field that is absent or null has its fallback. One of another type makes status()
// INVALID_ARGUMENT, naming it with `path` before, and has its fallback too.
class JsonFields {
 public:
  // `object` must outlive this.
  JsonFields(const nlohmann::json& object, std::string path);

  bool Bool(const char* name, bool fallback);
  double Number(const char* name, double fallback);
  int64_t Integer(const char* name, int64_t fallback);
  std::string String(const char* name, const std::string& fallback);
  // An array, or null if there is none.
  const nlohmann::json* Array(const char* name);
  // Any value, or null if there is none.
  const nlohmann::json* Find(const char* name) const;

  const std::string& path() const { return path_; }
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json* FindTyped(const char* name, bool (*is_type)(const nlohmann::json&),
                                  absl::string_view type);

  const nlohmann::json& object_;
  std::string path_;
  absl::Status status_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_JSON_FIELDS_H_
