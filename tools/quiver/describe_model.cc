#include "tools/quiver/describe_model.h"

#include <cstdint>
#include <optional>

#include "engine/model/model_config.h"
#include "engine/model_files.h"
#include "engine/planner.h"
#include "engine/run/cpu_backend.h"
#include "engine/text/input_builder.h"
#include "kernels/cpu/thread_pool.h"

namespace quiver {

absl::StatusOr<v1::ModelInfo> DescribeModel(const ResolvedModel& model, bool fingerprint) {
  absl::StatusOr<ModelFiles> files =
      OpenModelFiles(model.dir, model.name, QuantizationChoice::kAuto);
  if (!files.ok()) return files.status();
  const ModelConfig& config = files->info.config;

  v1::ModelInfo info;
  info.set_model(files->info.name);
  info.set_architecture(FamilyName(config.family));
  info.set_hidden_size(static_cast<uint32_t>(config.hidden_size));
  info.set_num_layers(static_cast<uint32_t>(config.num_layers));
  info.set_vocabulary_size(static_cast<uint32_t>(config.vocab_size));
  info.set_parameters(static_cast<uint64_t>(files->info.num_parameters));
  info.set_pooling(PoolingName(config.pooling));
  info.set_weight_type(files->info.weight_type);
  info.set_quantization(config.quantization);
  v1::Dimensions& dimensions = *info.mutable_dimensions();
  dimensions.set_default_value(static_cast<uint32_t>(config.hidden_size));
  dimensions.set_min_value(static_cast<uint32_t>(config.min_dimensions));
  dimensions.set_max_value(static_cast<uint32_t>(config.hidden_size));
  for (const auto& [name, text] : config.prompts) {
    v1::Prompt& prompt = *info.add_prompts();
    prompt.set_name(name);
    prompt.set_text(text);
  }
  info.set_default_prompt_name(config.default_prompt_name);
  info.set_accepts_instruction(!config.instruction_template.empty());
  info.set_default_truncation(v1::TRUNCATION_NONE);
  const int max_tokens = config.default_max_tokens;
  info.mutable_limits()->set_max_input_tokens(static_cast<uint32_t>(max_tokens));
  info.mutable_limits()->set_max_text_bytes(static_cast<uint64_t>(MaxTextBytes(max_tokens)));
  if (fingerprint) {
    const std::string base =
        SpaceBaseDigest(config, files->weights->Fingerprint(cpu::AvailableCores()),
                        files->tokenizer->fingerprint(), kCpuArithmetic);
    absl::StatusOr<Planner> planner = Planner::Create(
        config, std::nullopt, std::nullopt, Truncation::kNone, MaxTextBytes(max_tokens), base);
    if (!planner.ok()) return planner.status();
    absl::StatusOr<RequestPlan> plan = planner->Plan({});
    if (!plan.ok()) return plan.status();
    info.mutable_vector_space()->set_fingerprint(plan->space_fingerprint);
    info.mutable_vector_space()->set_prompt_fingerprint(plan->prompt_fingerprint);
  }
  return info;
}

}  // namespace quiver
