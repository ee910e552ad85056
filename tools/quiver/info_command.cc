#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "nlohmann/json.hpp"
#include "tools/quiver/command_line.h"
#include "tools/quiver/json_text.h"
#include "tools/quiver/output_file.h"
#include "tools/quiver/work_flags.h"

namespace quiver {
namespace {

const char* TruncationName(v1::Truncation truncation) {
  switch (truncation) {
    case v1::TRUNCATION_RIGHT:
      return "right";
    case v1::TRUNCATION_LEFT:
      return "left";
    default:
      return "none";
  }
}

nlohmann::ordered_json ToJson(const v1::ModelInfo& info) {
  nlohmann::ordered_json prompts = nlohmann::ordered_json::object();
  for (const v1::Prompt& prompt : info.prompts()) prompts[prompt.name()] = prompt.text();
  nlohmann::ordered_json memory = nlohmann::ordered_json::object();
  for (const v1::DeviceMemory& use : info.device_memory()) memory[use.purpose()] = use.bytes();
  const v1::Limits& limits = info.limits();
  nlohmann::ordered_json json = {
      {"model", info.model()},
      {"aliases", std::vector<std::string>(info.aliases().begin(), info.aliases().end())},
      {"architecture", info.architecture()},
      {"hidden_size", info.hidden_size()},
      {"num_layers", info.num_layers()},
      {"vocabulary_size", info.vocabulary_size()},
      {"parameters", info.parameters()},
      {"pooling", info.pooling()},
      {"weight_type", info.weight_type()},
      {"quantization", info.quantization()},
      {"device", info.device()},
      {"device_memory_bytes", memory},
      {"device_memory_budget_bytes", info.device_memory_budget_bytes()},
      {"dimensions",
       {{"default", info.dimensions().default_value()},
        {"min", info.dimensions().min_value()},
        {"max", info.dimensions().max_value()}}},
      {"prompts", prompts},
      {"default_prompt", info.default_prompt_name()},
      {"accepts_instruction", info.accepts_instruction()},
      {"default_truncation", TruncationName(info.default_truncation())},
      {"limits",
       {{"max_input_tokens", limits.max_input_tokens()},
        {"max_text_bytes", limits.max_text_bytes()},
        {"max_items_per_request", limits.max_items_per_request()},
        {"max_message_bytes", limits.max_message_bytes()},
        {"max_batch_tokens", limits.max_batch_tokens()}}},
      {"fingerprint", info.vector_space().fingerprint()},
      {"prompt_fingerprint", info.vector_space().prompt_fingerprint()},
      {"server_version", info.server_version()}};
  return json;
}

// 22713216 as "22,713,216".
std::string Grouped(uint64_t value) {
  std::string digits = absl::StrCat(value);
  for (size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

std::string Dimensions(const v1::Dimensions& dimensions) {
  if (dimensions.min_value() == dimensions.max_value()) {
    return absl::StrCat(dimensions.default_value());
  }
  return absl::StrCat(dimensions.default_value(), " (", dimensions.min_value(), " to ",
                      dimensions.max_value(), ")");
}

// What is not known (empty, or 0) has no line.
std::string ToTable(const v1::ModelInfo& info) {
  std::string table;
  const auto row = [&table](const char* name, const std::string& value) {
    if (!value.empty() && value != "0") absl::StrAppendFormat(&table, "%-20s  %s\n", name, value);
  };
  const v1::Limits& limits = info.limits();
  row("model", info.model());
  for (const std::string& alias : info.aliases()) row("  alias", alias);
  row("architecture", absl::StrCat(info.architecture(), ", ", info.num_layers(), " layers, ",
                                   info.pooling(), " pooling"));
  row("parameters", Grouped(info.parameters()));
  row("weights", info.quantization() == "none"
                     ? info.weight_type()
                     : absl::StrCat(info.weight_type(), ", ", info.quantization()));
  row("vocabulary", Grouped(info.vocabulary_size()));
  row("dimensions", Dimensions(info.dimensions()));
  row("device", info.device());
  for (const v1::DeviceMemory& use : info.device_memory()) {
    row("  memory", absl::StrCat(use.purpose(), " ", use.bytes() >> 20, " MiB"));
  }
  if (info.device_memory_budget_bytes() > 0) {
    row("  memory allowed", absl::StrCat(info.device_memory_budget_bytes() >> 20, " MiB"));
  }
  row("input tokens", absl::StrCat("up to ", Grouped(limits.max_input_tokens())));
  row("text bytes", absl::StrCat("up to ", Grouped(limits.max_text_bytes())));
  row("items a request", Grouped(limits.max_items_per_request()));
  row("bytes a message", Grouped(limits.max_message_bytes()));
  row("tokens a batch", Grouped(limits.max_batch_tokens()));
  row("longer inputs",
      info.default_truncation() == v1::TRUNCATION_NONE
          ? "fail"
          : absl::StrCat("are cut on the ", TruncationName(info.default_truncation())));
  for (const v1::Prompt& prompt : info.prompts()) {
    row(prompt.name() == info.default_prompt_name() ? "prompt (default)" : "prompt",
        absl::StrCat(prompt.name(), ": ", JsonString(prompt.text())));
  }
  row("instructions", info.accepts_instruction() ? "yes" : "no");
  row("fingerprint", info.vector_space().fingerprint());
  row("server", info.server_version());
  return table;
}

struct InfoFlags {
  ExecutorFlags executor;
  bool headers_only = false;
  bool json = false;
};

int Run(InfoFlags flags) {
  flags.executor.fingerprint = !flags.headers_only;
  absl::StatusOr<v1::ModelInfo> info = flags.executor.Make()->Describe();
  if (!info.ok()) return ReportFailure(info.status());
  return Print(flags.json ? ToJson(*info).dump(2) + "\n" : ToTable(*info));
}

}  // namespace

void AddInfoCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("info", "Show a model, its limits and its vector space");
  command->footer(
      "A directory is described without running its model, with the limits and the fingerprint "
      "that\n"
      "a server on the CPU has unless told otherwise.");
  auto flags = std::make_shared<InfoFlags>();
  flags->executor.AddTo(command, /*with_threads=*/false);
  command
      ->add_flag("--headers-only", flags->headers_only,
                 "Do not read the weights of --model to the end, which the fingerprint takes")
      ->group(kOutputGroup);
  command->add_flag("--json", flags->json, "One JSON object")->group(kOutputGroup);
  command->callback([flags, exit_code] {
    flags->executor.Check();
    *exit_code = Run(*flags);
  });
}

}  // namespace quiver
