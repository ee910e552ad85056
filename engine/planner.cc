#include "engine/planner.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "engine/digest.h"
#include "engine/field_error.h"
#include "engine/text/tokenizer.h"

namespace quiver {
namespace {

constexpr absl::string_view kInstructionMark = "{instruction}";

// One field of what is digested. With its length before it no value can pass for another's end.
void AppendField(absl::string_view key, absl::string_view value, std::string* out) {
  absl::StrAppend(out, key, " ", value.size(), " ", value, "\n");
}

}  // namespace

std::string SpaceBaseDigest(const ModelConfig& config, absl::string_view weights_fingerprint,
                            absl::string_view tokenizer_fingerprint, absl::string_view arithmetic) {
  std::string text = "quiver vector space 1\n";
  const auto add = [&text](absl::string_view key, absl::string_view value) {
    AppendField(key, value, &text);
  };
  add("weights", weights_fingerprint);
  add("tokenizer", tokenizer_fingerprint);
  add("arithmetic", arithmetic);
  add("quantization", config.quantization);
  add("family", absl::StrCat(static_cast<int>(config.family)));
  add("pooling", absl::StrCat(static_cast<int>(config.pooling)));
  add("shape", absl::StrJoin({config.hidden_size, config.intermediate_size, config.num_layers,
                              config.num_heads, config.num_kv_heads, config.head_dim,
                              config.vocab_size, config.type_vocab_size},
                             " "));
  add("norm_eps", absl::StrCat(config.norm_eps));
  add("rope_theta", absl::StrCat(config.rope_theta));
  add("activation", absl::StrCat(static_cast<int>(config.activation)));
  for (const auto& [name, prompt] : config.prompts) {
    add("prompt", name);
    add("text", prompt);
  }
  add("instruction", config.instruction_template);
  return HexDigest(text);
}

absl::StatusOr<Planner> Planner::Create(const ModelConfig& config,
                                        const std::optional<int64_t>& default_dimensions,
                                        const std::optional<std::string>& default_prompt_name,
                                        Truncation default_truncation, int64_t max_text_bytes,
                                        std::string base_digest) {
  Planner planner(config, max_text_bytes, std::move(base_digest));
  planner.defaults_.dimensions = config.hidden_size;
  if (default_dimensions.has_value()) {
    absl::StatusOr<int> checked =
        planner.CheckDimensions("default_dimensions", *default_dimensions);
    if (!checked.ok()) return checked.status();
    planner.defaults_.dimensions = *checked;
  }
  planner.defaults_.prompt_name = default_prompt_name.value_or(config.default_prompt_name);
  if (absl::StatusOr<std::string> prompt =
          planner.FindPrompt("default_prompt_name", planner.defaults_.prompt_name);
      !prompt.ok()) {
    return prompt.status();
  }
  planner.defaults_.truncation = default_truncation;
  return planner;
}

absl::StatusOr<RequestPlan> Planner::Plan(const RequestOptions& options) const {
  RequestPlan plan;
  if (options.prompt_name.has_value() && options.instruction.has_value()) {
    return FieldError("instruction", "cannot be combined with prompt_name");
  }
  absl::StatusOr<std::string> prompt =
      options.instruction.has_value()
          ? ApplyInstruction(*options.instruction)
          : FindPrompt("prompt_name", options.prompt_name.value_or(defaults_.prompt_name));
  if (!prompt.ok()) return prompt.status();
  plan.prompt = *std::move(prompt);
  if (!plan.prompt.empty()) plan.prompt_fingerprint = HexDigest(plan.prompt);

  absl::StatusOr<int> dimensions =
      CheckDimensions("dimensions", options.dimensions.value_or(defaults_.dimensions));
  if (!dimensions.ok()) return dimensions.status();
  plan.output.dimensions = *dimensions;
  plan.output.normalize = options.normalize.value_or(true);
  plan.output.type = options.output_type;
  plan.truncation = options.truncation.value_or(defaults_.truncation);
  plan.space_fingerprint = SpaceFingerprint(plan.output.dimensions, plan.output.normalize);
  return plan;
}

absl::StatusOr<int> Planner::CheckDimensions(absl::string_view field, int64_t dimensions) const {
  if (dimensions >= config_.min_dimensions && dimensions >= 1 &&
      dimensions <= config_.hidden_size) {
    return static_cast<int>(dimensions);
  }
  if (config_.min_dimensions >= config_.hidden_size) {
    return FieldError(field,
                      absl::StrCat("must be ", config_.hidden_size,
                                   ", the only size of this model's vectors; it is ", dimensions));
  }
  return FieldError(field, absl::StrCat("must be from ", config_.min_dimensions, " to ",
                                        config_.hidden_size, "; it is ", dimensions));
}

absl::StatusOr<std::string> Planner::FindPrompt(absl::string_view field,
                                                absl::string_view name) const {
  if (name.empty()) return std::string();
  std::vector<std::string> known;
  for (const auto& [prompt_name, text] : config_.prompts) {
    if (prompt_name == name) return text;
    known.push_back(absl::StrCat("\"", prompt_name, "\""));
  }
  // A client's string of any length; its beginning is enough to recognize it.
  constexpr size_t kShown = 64;
  const absl::string_view shown = name.substr(0, kShown);
  return FieldError(
      field,
      absl::StrCat("the model has no prompt \"", shown, name.size() > kShown ? "..." : "", "\"; ",
                   known.empty() ? "it has none"
                                 : absl::StrCat("its prompts are ", absl::StrJoin(known, ", "))));
}

absl::StatusOr<std::string> Planner::ApplyInstruction(absl::string_view instruction) const {
  if (config_.instruction_template.empty()) {
    return FieldError("instruction", "this model takes no instructions");
  }
  if (instruction.empty()) return FieldError("instruction", "must not be empty");
  if (static_cast<int64_t>(instruction.size()) > max_text_bytes_) {
    return FieldError("instruction", absl::StrCat("must be at most ", max_text_bytes_,
                                                  " bytes; it is ", instruction.size()));
  }
  if (const int64_t offset = FindInvalidUtf8(instruction); offset >= 0) {
    return FieldError("instruction", absl::StrCat("invalid UTF-8 at byte ", offset));
  }
  return absl::StrReplaceAll(config_.instruction_template, {{kInstructionMark, instruction}});
}

std::string Planner::SpaceFingerprint(int dimensions, bool normalize) const {
  return HexDigest(absl::StrCat(base_digest_, " ", dimensions, " ", normalize ? 1 : 0));
}

}  // namespace quiver
