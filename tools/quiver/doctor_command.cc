#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/run/device_options.h"
#include "nlohmann/json.hpp"
#include "tools/quiver/command_line.h"
#include "tools/quiver/doctor_checks.h"
#include "tools/quiver/find_model.h"

namespace quiver {
namespace {

// The server's default ports.
constexpr int kGrpcPort = 50051;
constexpr int kHttpPort = 30000;

const char* VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kWarning:
      return "warning";
    case Verdict::kFailure:
      return "failure";
  }
  return "";
}

std::string ToTable(const std::vector<Finding>& findings) {
  std::string table;
  for (const Finding& finding : findings) {
    absl::StrAppendFormat(&table, "%-7s  %-16s  %s\n", VerdictName(finding.verdict), finding.name,
                          finding.detail);
    if (!finding.advice.empty()) absl::StrAppendFormat(&table, "%27s-> %s\n", "", finding.advice);
  }
  return table;
}

std::string ToJson(const std::vector<Finding>& findings, Verdict worst) {
  nlohmann::ordered_json checks = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    nlohmann::ordered_json check = {{"name", finding.name},
                                    {"verdict", VerdictName(finding.verdict)},
                                    {"detail", finding.detail}};
    if (!finding.advice.empty()) check["advice"] = finding.advice;
    checks.push_back(std::move(check));
  }
  const nlohmann::ordered_json all = {{"verdict", VerdictName(worst)}, {"checks", checks}};
  // File names may be of any bytes.
  return all.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

// `memory_bytes` is a GPU's; 0 if nobody asks for one.
std::vector<Finding> CheckNamedModel(const std::string& model, int64_t memory_bytes) {
  const absl::StatusOr<ResolvedModel> found = FindModel(model);
  if (!found.ok()) {
    return {{"model", Verdict::kFailure, std::string(found.status().message()), ""}};
  }
  std::vector<Finding> findings = CheckModel(found->dir);
  if (memory_bytes == 0) return findings;
  // The model is to run there, not in this machine's memory.
  std::erase_if(findings, [](const Finding& finding) { return finding.name == "model memory"; });
  for (Finding& finding : CheckDeviceMemory(found->dir, memory_bytes)) {
    findings.push_back(std::move(finding));
  }
  return findings;
}

int Run(const std::string& model, int64_t memory_bytes, bool json) {
  std::vector<Finding> findings = {CheckCpu(), CheckMemory(), CheckOpenFiles()};
  const auto append = [&findings](std::vector<Finding> more) {
    std::move(more.begin(), more.end(), std::back_inserter(findings));
  };
  append(CheckNvidia());
  append({CheckPort("gRPC", kGrpcPort), CheckPort("HTTP", kHttpPort)});
  append(model.empty() ? std::vector<Finding>{CheckDefaultModel()}
                       : CheckNamedModel(model, memory_bytes));

  Verdict worst = Verdict::kOk;
  for (const Finding& finding : findings) worst = std::max(worst, finding.verdict);
  const int printed = Print(json ? ToJson(findings, worst) : ToTable(findings));
  return worst == Verdict::kFailure ? int{kExitFailure} : printed;
}

}  // namespace

void AddDoctorCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand(
      "doctor", "Say what this machine can run, what is missing, and what to do");
  command->footer("The exit code is 1 if a check failed; warnings are only told.");
  auto model = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  CLI::Option* model_option =
      command
          ->add_option(
              "--model", *model,
              "Check this Hugging Face directory as well, or the model of this name at the hub")
          ->type_name("DIR|NAME");
  auto memory_bytes = std::make_shared<int64_t>(0);
  command
      ->add_option_function<std::string>(
          "--memory",
          [memory_bytes](const std::string& text) {
            const std::optional<MemoryBudget> memory = ParseMemoryBudget(text);
            if (!memory.has_value() || memory->bytes == 0) {
              throw CLI::ValidationError(
                  absl::StrCat("--memory must be bytes (such as 12GiB), is '", text, "'"));
            }
            *memory_bytes = memory->bytes;
          },
          "Say what a server of the model could do on a GPU with so much memory, quantized or\n"
          "not; none need be here")
      ->type_name("MEMORY")
      ->needs(model_option);
  command->add_flag("--json", *json, "One JSON object");
  command->callback(
      [model, memory_bytes, json, exit_code] { *exit_code = Run(*model, *memory_bytes, *json); });
}

}  // namespace quiver
