#include "engine/run/device_options.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace quiver {
namespace {

constexpr std::array<std::pair<absl::string_view, int>, 3> kUnits = {
    {{"GiB", 30}, {"MiB", 20}, {"KiB", 10}}};
// Of what is free, where no budget is set: room for what others take meanwhile.
constexpr double kDefaultFraction = 0.95;

bool IsDigits(absl::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

std::optional<DeviceChoice> ParseDeviceChoice(absl::string_view text) {
  using Kind = DeviceChoice::Kind;
  if (text == "auto") return DeviceChoice{Kind::kAuto, 0};
  if (text == "cpu") return DeviceChoice{Kind::kCpu, 0};
  if (text == "cuda") return DeviceChoice{Kind::kCuda, 0};
  DeviceChoice choice{Kind::kCuda, 0};
  if (!absl::ConsumePrefix(&text, "cuda:") || !IsDigits(text) ||
      !absl::SimpleAtoi(text, &choice.ordinal)) {
    return std::nullopt;
  }
  return choice;
}

std::string DeviceChoiceText(const DeviceChoice& choice) {
  switch (choice.kind) {
    case DeviceChoice::Kind::kAuto:
      return "auto";
    case DeviceChoice::Kind::kCpu:
      return "cpu";
    case DeviceChoice::Kind::kCuda:
      return choice.ordinal == 0 ? "cuda" : absl::StrCat("cuda:", choice.ordinal);
  }
  return "";
}

int64_t MemoryBudget::BytesOf(int64_t total_bytes) const {
  if (bytes > 0) return std::min(bytes, total_bytes);
  return static_cast<int64_t>(static_cast<double>(total_bytes) *
                              (fraction > 0 ? fraction : kDefaultFraction));
}

std::optional<MemoryBudget> ParseMemoryBudget(absl::string_view text) {
  MemoryBudget budget;
  int shift = 0;
  for (const auto& [unit, bits] : kUnits) {
    if (absl::ConsumeSuffix(&text, unit)) {
      shift = bits;
      break;
    }
  }
  if (IsDigits(text)) {
    if (!absl::SimpleAtoi(text, &budget.bytes)) return std::nullopt;
    if (budget.bytes > std::numeric_limits<int64_t>::max() >> shift) return std::nullopt;
    budget.bytes <<= shift;
    if (shift == 0 && budget.bytes == 1) return MemoryBudget{0, 1.0};
    return budget.bytes > 0 ? std::optional(budget) : std::nullopt;
  }
  double value = 0;
  if (!absl::SimpleAtod(text, &value) || !std::isfinite(value) || !(value > 0)) {
    return std::nullopt;
  }
  if (shift == 0) {
    if (value > 1) return std::nullopt;
    budget.fraction = value;
    return budget;
  }
  value *= static_cast<double>(int64_t{1} << shift);
  if (value < 1 || value > 9e18) return std::nullopt;
  budget.bytes = static_cast<int64_t>(value);
  return budget;
}

std::string MemoryBudgetText(const MemoryBudget& budget) {
  if (budget.bytes == 0) return budget.fraction > 0 ? absl::StrCat(budget.fraction) : "";
  for (const auto& [unit, bits] : kUnits) {
    if (budget.bytes % (int64_t{1} << bits) == 0) return absl::StrCat(budget.bytes >> bits, unit);
  }
  return absl::StrCat(budget.bytes);
}

std::optional<ActivationType> ParseActivationType(absl::string_view text) {
  if (text == "auto") return ActivationType::kAuto;
  if (text == "16bit") return ActivationType::kHalf;
  if (text == "fp8") return ActivationType::kFp8;
  return std::nullopt;
}

std::optional<ComputeType> ParseComputeType(absl::string_view text) {
  if (text == "bfloat16") return ComputeType::kBfloat16;
  if (text == "float16") return ComputeType::kFloat16;
  return std::nullopt;
}

}  // namespace quiver
