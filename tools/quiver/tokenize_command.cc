#include <memory>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "tools/quiver/command_line.h"
#include "tools/quiver/output_file.h"
#include "tools/quiver/result_writer.h"
#include "tools/quiver/run_report.h"
#include "tools/quiver/work_flags.h"

namespace quiver {
namespace {

struct TokenizeFlags {
  WorkFlags work;
  std::string output = "-";
};

int Run(const TokenizeFlags& flags) {
  auto source = flags.work.OpenSource();
  if (!source.ok()) return ReportFailure(source.status());
  auto file = OutputFile::Open(flags.output, OutputFile::Mode::kAsItGoes);
  if (!file.ok()) return ReportFailure(file.status());
  const std::unique_ptr<TokenWriter> writer = JsonlTokens(*std::move(file));

  RunReport report(/*results_on_stdout=*/flags.output == "-");
  ReportingSink<TokenizedInput> sink(writer.get(), &report);
  const absl::Status status =
      flags.work.executor.Make()->Tokenize(flags.work.Options(), source->get(), &sink);
  return FinishRun(status, writer.get(), &report);
}

}  // namespace

void AddTokenizeCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("tokenize", "Show the token ids that embed would run");
  command->footer(
      "Prompt and special tokens are included. One JSON object a line, in the order of the "
      "inputs:\n"
      "  {\"id\": ..., \"ids\": [...]}   \"index\": N where there is no id\n"
      "  {\"id\": ..., \"error\": {\"code\": ..., \"message\": ...}}\n"
      "A text that fails is also told on standard error; the others go on, and the exit code is "
      "1.");
  auto flags = std::make_shared<TokenizeFlags>();
  flags->work.AddTo(command, /*with_threads=*/false);
  command->add_option("--output", flags->output, "Write to this file (default: standard output)")
      ->type_name("FILE")
      ->group(kOutputGroup);
  command->callback([flags, exit_code] {
    flags->work.Check();
    *exit_code = Run(*flags);
  });
}

}  // namespace quiver
