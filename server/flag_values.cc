#include "server/flag_values.h"

#include <array>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"

namespace quiver {
namespace {

struct ByteUnit {
  absl::string_view suffix;
  int shift;
};
// The largest first, so that a value is printed in the largest that divides it.
constexpr std::array<ByteUnit, 4> kByteUnits = {{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"", 0}}};

std::string PrintBytes(int64_t bytes) {
  for (const auto& [suffix, shift] : kByteUnits) {
    const int64_t unit = int64_t{1} << shift;
    if (bytes >= unit && bytes % unit == 0) return absl::StrCat(bytes / unit, suffix);
  }
  return "0";
}

std::optional<int64_t> ParseBytes(absl::string_view text) {
  for (const auto& [suffix, shift] : kByteUnits) {
    if (!absl::EndsWith(text, suffix)) continue;
    text.remove_suffix(suffix.size());
    uint32_t count = 0;
    int64_t plain = 0;
    if (shift == 0) return absl::SimpleAtoi(text, &plain) ? std::optional(plain) : std::nullopt;
    if (!absl::SimpleAtoi(text, &count)) return {};
    return int64_t{count} << shift;
  }
  return {};
}

}  // namespace

ValueKind<std::string> TextValue(std::string type, bool may_be_empty) {
  return {std::move(type), "a text that is not empty",
          [may_be_empty](const std::string& text) -> std::optional<std::string> {
            if (text.empty() && !may_be_empty) return {};
            return text;
          },
          [](const std::string& text) { return text; }};
}

ValueKind<absl::Duration> DurationValue(absl::Duration min, absl::Duration max) {
  return {"DURATION",
          absl::StrCat("a duration with its unit, from ", absl::FormatDuration(min), " to ",
                       absl::FormatDuration(max), ", such as 1m30s, 2.5s or 20ms"),
          [min, max](const std::string& text) -> std::optional<absl::Duration> {
            absl::Duration value;
            if (!absl::ParseDuration(text, &value) || value < min || value > max) return {};
            return value;
          },
          [](const absl::Duration& value) { return absl::FormatDuration(value); }};
}

ValueKind<int64_t> BytesValue(int64_t min, int64_t max) {
  return {"BYTES",
          absl::StrCat("a number of bytes from ", PrintBytes(min), " to ", PrintBytes(max),
                       ", such as 65536, 64KiB or 4MiB"),
          [min, max](const std::string& text) -> std::optional<int64_t> {
            const std::optional<int64_t> value = ParseBytes(text);
            if (!value || *value < min || *value > max) return {};
            return value;
          },
          PrintBytes};
}

ValueKind<double> RealValue(double min, double max) {
  return {"X", absl::StrCat("a number from ", min, " to ", max),
          [min, max](const std::string& text) -> std::optional<double> {
            double value = 0;
            if (!absl::SimpleAtod(text, &value) || !(value >= min && value <= max)) return {};
            return value;
          },
          [](const double& value) { return absl::StrCat(value); }};
}

}  // namespace quiver
