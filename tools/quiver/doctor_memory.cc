#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/run/create_backend.h"
#include "tools/quiver/doctor_checks.h"

namespace quiver {
namespace {

// What a server may be started with.
struct Way {
  const char* name;
  const char* flags;
  QuantizationChoice quantization = QuantizationChoice::kAuto;
  ActivationType activation = ActivationType::kAuto;
};
constexpr Way kStored = {"fits as it is", "without flags"};
constexpr Way kStoredFp8 = {"fits fp8 inputs", "--activation fp8", QuantizationChoice::kAuto,
                            ActivationType::kFp8};
constexpr Way kFp8 = {"fits fp8", "--quantization fp8", QuantizationChoice::kFp8};
constexpr Way kInt4 = {"fits int4", "--quantization int4", QuantizationChoice::kInt4};
constexpr Way kInt4Fp8 = {"fits int4 by fp8", "--quantization int4 --activation fp8",
                          QuantizationChoice::kInt4, ActivationType::kFp8};

absl::StatusOr<MemoryForecast> Forecast(const Way& way, ModelConfig config, const Weights& weights,
                                        int64_t bytes) {
  absl::StatusOr<QuantizationConfig> chosen = config.quantization_config.With(way.quantization);
  if (!chosen.ok()) return chosen.status();
  config.quantization_config = *std::move(chosen);
  BackendOptions options;
  options.cuda.activation = way.activation;
  options.cuda.memory_budget.bytes = bytes;
  return ForecastMemory(config, &weights, options, bytes);
}

Finding ToFinding(const Way& way, const ModelConfig& config,
                  const absl::StatusOr<MemoryForecast>& forecast) {
  Finding finding{.name = way.name, .verdict = Verdict::kOk, .detail = "", .advice = ""};
  if (!forecast.ok()) {
    finding.verdict = Verdict::kWarning;
    finding.detail = absl::StrCat(way.flags, ": ", forecast.status().message());
    return finding;
  }
  int64_t all = 0;
  std::string purposes;
  for (const MemoryUse& use : forecast->memory) {
    all += use.bytes;
    absl::StrAppend(&purposes, purposes.empty() ? "" : ", ", use.purpose, " ",
                    HumanBytes(use.bytes));
  }
  finding.detail =
      absl::StrCat(way.flags, ": inputs of ", forecast->max_sequence_tokens, " tokens, batches of ",
                   forecast->max_batch_tokens, "; ", HumanBytes(all), " (", purposes, ")");
  if (forecast->max_sequence_tokens < config.default_max_tokens) {
    finding.verdict = Verdict::kWarning;
    finding.advice =
        absl::StrCat("the model takes inputs of ", config.default_max_tokens, " tokens");
  }
  return finding;
}

}  // namespace

std::vector<Finding> CheckDeviceMemory(const std::string& model_dir, int64_t bytes) {
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(model_dir);
  const auto weights = Weights::Open(model_dir);
  // What is wrong with them is CheckModel's to say.
  if (!config.ok() || !weights.ok()) return {};
  // What is quantized already is not quantized again.
  const std::vector<Way> ways = config->quantization_config.method() == "none"
                                    ? std::vector<Way>{kStored, kFp8, kInt4, kInt4Fp8}
                                    : std::vector<Way>{kStored, kStoredFp8};
  std::vector<Finding> findings;
  bool fits = false;
  for (const Way& way : ways) {
    const absl::StatusOr<MemoryForecast> forecast = Forecast(way, *config, **weights, bytes);
    findings.push_back(ToFinding(way, *config, forecast));
    fits |= forecast.ok();
  }
  if (!fits) {
    for (Finding& finding : findings) finding.verdict = Verdict::kFailure;
  }
  return findings;
}

}  // namespace quiver
