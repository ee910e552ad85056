// Kinds of values a flag may have: how they are read, and how a wrong one is answered.
#ifndef QUIVER_SERVER_FLAG_VALUES_H_
#define QUIVER_SERVER_FLAG_VALUES_H_

#include <charconv>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace quiver {

template <typename T>
struct ValueKind {
  // As --help shows it: "N", "DURATION".
  std::string type;
  // Completes "must be ...".
  std::string allowed;
  // Nothing if the text is not allowed.
  std::function<std::optional<T>(const std::string&)> parse;
  // What `parse` would read back, for the default in --help.
  std::function<std::string(const T&)> print;
};

// Any text, the empty one only if `may_be_empty`.
ValueKind<std::string> TextValue(std::string type, bool may_be_empty = false);

// Such as "1.5s", "2m30s", "20ms".
ValueKind<absl::Duration> DurationValue(absl::Duration min, absl::Duration max);

// Bytes, plain or with KiB, MiB or GiB behind.
ValueKind<int64_t> BytesValue(int64_t min, int64_t max);

ValueKind<double> RealValue(double min, double max);

template <typename T>
ValueKind<T> IntegerValue(T min, T max) {
  return {"N", absl::StrCat("an integer from ", min, " to ", max),
          [min, max](const std::string& text) -> std::optional<T> {
            T value{};
            const char* end = text.data() + text.size();
            const auto [rest, error] = std::from_chars(text.data(), end, value);
            if (error != std::errc() || rest != end || value < min || value > max) return {};
            return value;
          },
          [](const T& value) { return absl::StrCat(value); }};
}

template <typename T>
ValueKind<T> ChoiceValue(std::vector<std::pair<std::string, T>> choices) {
  const auto name = [](std::string* out, const auto& choice) {
    absl::StrAppend(out, choice.first);
  };
  std::string names = absl::StrJoin(choices, "|", name);
  std::string allowed = absl::StrCat("one of ", absl::StrJoin(choices, ", ", name));
  return {std::move(names), std::move(allowed),
          [choices](const std::string& text) -> std::optional<T> {
            for (const auto& [known, value] : choices) {
              if (known == text) return value;
            }
            return {};
          },
          [choices](const T& value) -> std::string {
            for (const auto& [known, choice] : choices) {
              if (choice == value) return known;
            }
            return "";
          }};
}

}  // namespace quiver

#endif  // QUIVER_SERVER_FLAG_VALUES_H_
