#include "tools/quiver/workload.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace quiver {
namespace {

constexpr int kMostTokens = 1 << 20;
constexpr int kMostItems = 100'000;

absl::Status Wrong(absl::string_view key, absl::string_view allowed, absl::string_view value) {
  return absl::InvalidArgumentError(absl::StrCat(key, ": must be ", allowed, ", is '", value, "'"));
}

absl::Status ParseCount(absl::string_view key, absl::string_view value, int most, int* out) {
  if (absl::SimpleAtoi(value, out) && *out >= 1 && *out <= most) return absl::OkStatus();
  return Wrong(key, absl::StrCat("an integer from 1 to ", most), value);
}

absl::Status ParseMilliseconds(absl::string_view key, absl::string_view value,
                               absl::Duration* out) {
  double ms = 0;
  if (!absl::SimpleAtod(value, &ms) || !(ms > 0) || !(ms <= 1e9)) {
    return Wrong(key, "milliseconds above 0, at most 1e9", value);
  }
  *out = absl::Milliseconds(ms);
  return absl::OkStatus();
}

absl::Status ParseTokens(absl::string_view value, Workload* out) {
  const std::vector<absl::string_view> ends = absl::StrSplit(value, '-');
  const auto valid = [](absl::string_view text, int* tokens) {
    return ParseCount("tokens", text, kMostTokens, tokens).ok();
  };
  if (ends.size() > 2 || !valid(ends.front(), &out->min_tokens) ||
      !valid(ends.back(), &out->max_tokens) || out->min_tokens > out->max_tokens) {
    return Wrong("tokens", absl::StrCat("N or N-M, from 1 to ", kMostTokens), value);
  }
  return absl::OkStatus();
}

absl::Status ParseSwitch(absl::string_view key, std::optional<absl::string_view> value, bool* out) {
  if (value.has_value()) return Wrong(key, "given without a value", *value);
  *out = true;
  return absl::OkStatus();
}

absl::Status ParsePair(absl::string_view key, std::optional<absl::string_view> given, Workload* out,
                       std::optional<Lane>* lane) {
  if (key == "stream") return ParseSwitch(key, given, &out->stream);
  if (key == "even") return ParseSwitch(key, given, &out->even);
  if (key == "text") return ParseSwitch(key, given, &out->text);
  const absl::string_view value = given.value_or("");
  if (key == "name" || key == "tenant") {
    if (value.empty()) return Wrong(key, "a text", value);
    (key == "name" ? out->name : out->tenant) = std::string(value);
    return absl::OkStatus();
  }
  if (key == "rate") {
    if (absl::SimpleAtod(value, &out->rate) && out->rate > 0 && out->rate <= 1e6) {
      return absl::OkStatus();
    }
    return Wrong(key, "requests a second, above 0 and at most 1e6", value);
  }
  if (key == "lane") {
    if (value != "interactive" && value != "bulk") {
      return Wrong(key, "interactive or bulk", value);
    }
    *lane = value == "bulk" ? Lane::kBulk : Lane::kInteractive;
    return absl::OkStatus();
  }
  if (key == "outstanding") return ParseCount(key, value, kMostItems, &out->outstanding);
  if (key == "items") return ParseCount(key, value, kMostItems, &out->items);
  if (key == "tokens") return ParseTokens(value, out);
  if (key == "shared") return ParseCount(key, value, kMostTokens, &out->shared_tokens);
  if (key == "deadline") return ParseMilliseconds(key, value, &out->deadline);
  if (key == "target") return ParseMilliseconds(key, value, &out->target);
  return absl::InvalidArgumentError(
      absl::StrCat("there is no key '", key, "'; the keys are ", kWorkloadKeys));
}

}  // namespace

absl::StatusOr<Workload> ParseWorkload(absl::string_view text) {
  Workload out;
  std::optional<Lane> lane;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const size_t equals = part.find('=');
    const bool has_value = equals != absl::string_view::npos;
    const absl::Status status = ParsePair(
        part.substr(0, equals),
        has_value ? std::make_optional(part.substr(equals + 1)) : std::nullopt, &out, &lane);
    if (!status.ok()) return status;
  }
  if ((out.rate > 0) == (out.outstanding > 0)) {
    return absl::InvalidArgumentError("one of rate and outstanding must be given");
  }
  if (out.shared_tokens > out.min_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("shared: must be at most ", out.min_tokens,
                                                   ", the fewest tokens, is ", out.shared_tokens));
  }
  if (out.stream && out.items > 1) {
    return absl::InvalidArgumentError("items: is for requests of their own, not for a stream");
  }
  if (out.stream && out.deadline != absl::InfiniteDuration()) {
    return absl::InvalidArgumentError("deadline: is for requests of their own, not for a stream");
  }
  out.lane = lane.value_or(out.stream ? Lane::kBulk : Lane::kInteractive);
  return out;
}

}  // namespace quiver
