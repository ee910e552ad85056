// A JSON file of a model directory, read field by field, with the first complaint remembered.
#ifndef QUIVER_ENGINE_MODEL_JSON_FILE_H_
#define QUIVER_ENGINE_MODEL_JSON_FILE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace quiver {

// Bytes of the longest file of settings (these have a few kilobytes; prompts may make them longer),
// and of the longest index of shards.
inline constexpr int64_t kMaxSettingsBytes = 4 << 20;
inline constexpr int64_t kMaxIndexBytes = 64 << 20;

// The value a file holds. NOT_FOUND names the file; INVALID_ARGUMENT if it is no JSON, too long, or
// nests too deep.
absl::StatusOr<nlohmann::ordered_json> ReadJsonValue(const std::string& path, int64_t max_bytes);

class JsonFile {
 public:
  // Reads `path`, whose outermost value must be an object. NOT_FOUND or INVALID_ARGUMENT names the
  // file.
  static absl::StatusOr<JsonFile> Read(const std::string& path,
                                       int64_t max_bytes = kMaxSettingsBytes);
  // As Read, but a file that is not there reads as an empty object.
  static absl::StatusOr<JsonFile> ReadIfPresent(const std::string& path);
  // The same over a value of any type that is at hand; `path` is for messages.
  JsonFile(std::string path, nlohmann::ordered_json value)
      : path_(std::move(path)), value_(std::move(value)) {}

  // A field that is absent or null has its fallback; without a fallback it must be there. A value
  // of another type or out of [min, max] makes status() INVALID_ARGUMENT, and the smallest value is
  // returned.
  int64_t Integer(const char* key, int64_t min, int64_t max,
                  std::optional<int64_t> fallback = std::nullopt);
  // Above `above` and at most `max`.
  double Number(const char* key, double above, double max,
                std::optional<double> fallback = std::nullopt);
  bool Bool(const char* key, bool fallback);
  std::string String(const char* key, std::optional<std::string> fallback = std::nullopt);
  // Null if absent or null.
  const nlohmann::ordered_json* Find(const char* key) const;

  // Remembers that `key` is not `allowed`, unless something was wrong before. A `key` with dots is
  // only a name; the value shown is `value`.
  void Refuse(absl::StatusCode code, absl::string_view key, absl::string_view allowed,
              const nlohmann::ordered_json& value);

  // Takes over what was wrong in a part of this file, unless something was wrong before.
  void Adopt(const absl::Status& status) { status_.Update(status); }

  const std::string& path() const { return path_; }
  const nlohmann::ordered_json& value() const { return value_; }
  const absl::Status& status() const { return status_; }

 private:
  void Missing(const char* key);

  std::string path_;
  nlohmann::ordered_json value_;
  absl::Status status_;
};

// The beginning of a value as text, for messages.
std::string Preview(const nlohmann::ordered_json& value);

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_JSON_FILE_H_
