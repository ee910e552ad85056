#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/model_config.h"
#include "engine/model/model_tensors.h"
#include "engine/model/weights.h"
#include "engine/text/tokenizer.h"
#include "tools/quiver/doctor_checks.h"

namespace quiver {
namespace {

// A pass's batch on the CPU, and the tokens that may be under way.
constexpr int64_t kBatchTokens = 4096;
constexpr int64_t kPasses = 2;
// The process without a model.
constexpr int64_t kBaseBytes = int64_t{64} << 20;

Finding Failure(const char* name, const absl::Status& status) {
  return {.name = name,
          .verdict = Verdict::kFailure,
          .detail = std::string(status.message()),
          .advice = status.code() == absl::StatusCode::kUnimplemented
                        ? "Quiver does not run such a model"
                        : "get the directory again, whole"};
}

Finding Ok(const char* name, std::string detail) {
  return {.name = name, .verdict = Verdict::kOk, .detail = std::move(detail), .advice = ""};
}

// What running on the CPU takes: the weights, and what CreateCpuBackend says of its passes.
Finding CheckFits(const ModelConfig& config, const Weights& weights) {
  const int64_t per_token =
      4 * (int64_t{config.hidden_size} +
           int64_t{config.head_dim} * (config.num_heads + 2 * config.num_kv_heads));
  const int64_t tokens = std::max<int64_t>(kBatchTokens, config.default_max_tokens);
  const int64_t needed = kBaseBytes + weights.num_bytes() + kPasses * tokens * per_token;
  const int64_t available = AvailableMemoryBytes();
  Finding finding = Ok("model memory", absl::StrCat("about ", HumanBytes(needed), " of ",
                                                    HumanBytes(available), " available"));
  if (needed > available) {
    finding.verdict = Verdict::kFailure;
    finding.advice = "free memory, raise the container's limit, or take a smaller model";
  }
  return finding;
}

}  // namespace

Finding CheckDefaultModel() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::string base = cache != nullptr && *cache != '\0'
                               ? std::string(cache)
                               : absl::StrCat(home != nullptr ? home : "", "/.cache");
  const std::string folder = absl::StrCat(base, "/quiver/models/all-MiniLM-L6-v2");
  std::error_code ignored;
  if (std::filesystem::is_directory(folder, ignored)) return Ok("default model", folder);
  return {.name = "default model",
          .verdict = Verdict::kWarning,
          .detail = absl::StrCat("not in ", folder),
          .advice = "tools/run or tools/fetch-default-model gets it (83 MB)"};
}

std::vector<Finding> CheckModel(const std::string& model_dir) {
  std::vector<Finding> findings;
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(model_dir);
  if (config.ok()) {
    findings.push_back(
        Ok("model config", absl::StrCat(FamilyName(config->family), ", ", config->num_layers,
                                        " layers of ", config->hidden_size)));
  } else {
    findings.push_back(Failure("model config", config.status()));
  }

  const auto tokenizer = Tokenizer::Load(absl::StrCat(model_dir, "/tokenizer.json"));
  if (!tokenizer.ok()) {
    findings.push_back(Failure("model tokenizer", tokenizer.status()));
  } else if (config.ok() && (*tokenizer)->vocabulary_size() > config->vocab_size) {
    findings.push_back(
        Failure("model tokenizer",
                absl::InvalidArgumentError(absl::StrCat(
                    "tokenizer.json gives ids up to ", (*tokenizer)->vocabulary_size() - 1,
                    ", config.json's vocab_size is ", config->vocab_size))));
  } else {
    findings.push_back(
        Ok("model tokenizer", absl::StrCat((*tokenizer)->vocabulary_size(), " ids")));
  }

  const auto weights = Weights::Open(model_dir);
  if (!weights.ok()) {
    findings.push_back(Failure("model weights", weights.status()));
  } else if (const absl::Status layers =
                 config.ok() ? CheckNoFurtherLayer(*config, **weights) : absl::OkStatus();
             !layers.ok()) {
    findings.push_back(Failure("model weights", layers));
  } else {
    findings.push_back(Ok("model weights", absl::StrCat((*weights)->tensors().size(), " tensors, ",
                                                        HumanBytes((*weights)->num_bytes()))));
  }
  if (config.ok() && weights.ok()) findings.push_back(CheckFits(*config, **weights));
  return findings;
}

}  // namespace quiver
