#ifndef QUIVER_ENGINE_PLANNER_H_
#define QUIVER_ENGINE_PLANNER_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/embedder.h"
#include "engine/model/model_config.h"

namespace quiver {

// Checks what a request wishes for against one model, and names the vector space it gets. Immutable
// and thread-safe.
class Planner {
 public:
  struct Defaults {
    int dimensions = 0;
    std::string prompt_name;
    Truncation truncation = Truncation::kNone;
  };

  // `base_digest` stands for all of the space but dimensions and normalization; see
  // SpaceBaseDigest. Errors are FieldErrors of Embedder::Options' names.
  static absl::StatusOr<Planner> Create(const ModelConfig& config,
                                        const std::optional<int64_t>& default_dimensions,
                                        const std::optional<std::string>& default_prompt_name,
                                        Truncation default_truncation, int64_t max_text_bytes,
                                        std::string base_digest);

  absl::StatusOr<RequestPlan> Plan(const RequestOptions& options) const;

  const Defaults& defaults() const { return defaults_; }

 private:
  Planner(const ModelConfig& config, int64_t max_text_bytes, std::string base_digest)
      : config_(config), max_text_bytes_(max_text_bytes), base_digest_(std::move(base_digest)) {}

  // Both name `field` in their errors.
  absl::StatusOr<int> CheckDimensions(absl::string_view field, int64_t dimensions) const;
  absl::StatusOr<std::string> FindPrompt(absl::string_view field, absl::string_view name) const;
  absl::StatusOr<std::string> ApplyInstruction(absl::string_view instruction) const;
  std::string SpaceFingerprint(int dimensions, bool normalize) const;

  ModelConfig config_;
  int64_t max_text_bytes_;
  std::string base_digest_;
  Defaults defaults_;
};

// Digest of what decides a vector's value beside dimensions and normalization: weights,
// quantization, arithmetic, the model's shape and constants, pooling, tokenizer, prompt table.
std::string SpaceBaseDigest(const ModelConfig& config, absl::string_view weights_fingerprint,
                            absl::string_view tokenizer_fingerprint, absl::string_view arithmetic);

}  // namespace quiver

#endif  // QUIVER_ENGINE_PLANNER_H_
