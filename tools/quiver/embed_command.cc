#include <memory>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/match.h"
#include "tools/quiver/command_line.h"
#include "tools/quiver/output_file.h"
#include "tools/quiver/result_writer.h"
#include "tools/quiver/run_report.h"
#include "tools/quiver/work_flags.h"

namespace quiver {
namespace {

constexpr std::pair<const char*, OutputType> kOutputTypes[] = {{"float32", OutputType::kFloat32},
                                                               {"float16", OutputType::kFloat16},
                                                               {"bfloat16", OutputType::kBfloat16},
                                                               {"int8", OutputType::kInt8},
                                                               {"binary", OutputType::kBinary}};

struct EmbedFlags {
  WorkFlags work;
  bool no_normalize = false;
  std::string output_type = "float32";
  std::string output = "-";
  std::string output_format;

  bool npy() const {
    return output_format == "npy" || (output_format.empty() && absl::EndsWith(output, ".npy"));
  }
};

int Run(const EmbedFlags& flags) {
  WorkOptions options = flags.work.Options();
  if (flags.no_normalize) options.request.normalize = false;
  for (const auto& [name, type] : kOutputTypes) {
    if (flags.output_type == name) options.request.output_type = type;
  }
  const OutputType type = options.request.output_type;

  auto source = flags.work.OpenSource();
  if (!source.ok()) return ReportFailure(source.status());
  auto file = OutputFile::Open(
      flags.output, flags.npy() ? OutputFile::Mode::kWhole : OutputFile::Mode::kAsItGoes);
  if (!file.ok()) return ReportFailure(file.status());
  const std::unique_ptr<EmbeddingWriter> writer =
      flags.npy() ? NpyEmbeddings(*std::move(file), type) : JsonlEmbeddings(*std::move(file), type);

  RunReport report(/*results_on_stdout=*/flags.output == "-");
  ReportingSink<Embedding> sink(writer.get(), &report);
  const absl::Status status = flags.work.executor.Make()->Embed(options, source->get(), &sink);
  return FinishRun(status, writer.get(), &report);
}

}  // namespace

void AddEmbedCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("embed", "Turn texts into vectors");
  command->footer(
      "One JSON object a line, in the order of the inputs:\n"
      "  {\"id\": ..., \"embedding\": [...], \"tokens\": N}   \"index\": N where there is no id\n"
      "  {\"id\": ..., \"error\": {\"code\": ..., \"message\": ...}}\n"
      "or a NumPy array. A text that fails is also told on standard error, with its line and id;\n"
      "the others go on, and the exit code is 1.");
  auto flags = std::make_shared<EmbedFlags>();
  flags->work.AddTo(command, /*with_threads=*/true);
  command
      ->add_option("--dimensions", flags->work.request.dimensions,
                   "Length of the vectors (default: the model's, or the server's)")
      ->check(CLI::Range(1, 1 << 30))
      ->type_name("N")
      ->group(kWorkGroup);
  command->add_flag("--no-normalize", flags->no_normalize, "Do not scale vectors to length 1")
      ->group(kWorkGroup);
  command
      ->add_option("--output-type", flags->output_type,
                   "Type of the vectors' elements: float32, float16, bfloat16, int8 (with a\n"
                   "\"scale\" a vector), binary (bytes, NumPy's packbits)")
      ->check(CLI::IsMember({"float32", "float16", "bfloat16", "int8", "binary"}))
      ->type_name("TYPE")
      ->capture_default_str()
      ->group(kWorkGroup);
  command
      ->add_option(
          "--output", flags->output,
          "Write to this file; one called .npy becomes a float32 array [texts, dimensions]\n"
          "with rows in the order of the inputs, where a text that fails is a row of NaN.\n"
          "It appears when it is whole (default: -, standard output)")
      ->type_name("FILE")
      ->group(kOutputGroup);
  command
      ->add_option("--output-format", flags->output_format,
                   "jsonl or npy (default: by the file's name)")
      ->check(CLI::IsMember({"jsonl", "npy"}))
      ->type_name("FORMAT")
      ->group(kOutputGroup);
  command->callback([flags, exit_code] {
    flags->work.Check();
    if (flags->npy() && flags->output_type == "binary") {
      throw CLI::ValidationError("--output-type", "binary cannot become rows of float32");
    }
    if (flags->npy() && flags->output == "-") {
      throw CLI::ValidationError("--output-format", "npy needs --output FILE");
    }
    *exit_code = Run(*flags);
  });
}

}  // namespace quiver
