#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/model/model_shapes.h"
#include "tools/quiver/command_line.h"
#include "tools/quiver/progress.h"
#include "tools/quiver/random_checkpoint.h"

namespace quiver {
namespace {

constexpr std::pair<const char*, DType> kDTypes[] = {
    {"bfloat16", DType::kBF16}, {"float16", DType::kF16}, {"float32", DType::kF32}};

struct MakeCheckpointFlags {
  RandomCheckpointOptions options;
  std::string dtype = "bfloat16";
};

int Run(const MakeCheckpointFlags& flags) {
  RandomCheckpointOptions options = flags.options;
  for (const auto& [name, dtype] : kDTypes) {
    if (flags.dtype == name) options.dtype = dtype;
  }
  Progress progress;
  const absl::StatusOr<RandomCheckpoint> made =
      WriteRandomCheckpoint(options, [&progress](int64_t done, int64_t total) {
        progress.Update(absl::StrFormat("%.2f of %.2f GB", static_cast<double>(done) * 1e-9,
                                        static_cast<double>(total) * 1e-9));
      });
  progress.Clear();
  if (!made.ok()) return ReportFailure(made.status());
  Say(absl::StrFormat("%s: %d parameters, %.2f GB in %d file(s), %s", options.output_dir,
                      made->parameters, static_cast<double>(made->weight_bytes) * 1e-9,
                      made->num_files,
                      options.tokenizer_dir.empty()
                          ? "with a plain tokenizer of single bytes or characters"
                          : absl::StrCat("with the tokenizer of ", options.tokenizer_dir)));
  return kExitOk;
}

}  // namespace

void AddMakeCheckpointCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand(
      "make-checkpoint", "Write a checkpoint of random weights, to measure and compare engines");
  auto flags = std::make_shared<MakeCheckpointFlags>();
  RandomCheckpointOptions& options = flags->options;
  CLI::Option* shape =
      command
          ->add_option("--shape", options.shape,
                       absl::StrCat("A public model: ", absl::StrJoin(ModelShapeNames(), ", ")))
          ->check(CLI::IsMember(ModelShapeNames()))
          ->type_name("NAME");
  command->add_option("--config", options.config_file, "A config.json to take the shape from")
      ->type_name("FILE")
      ->excludes(shape);
  command
      ->add_option("--output", options.output_dir,
                   "Directory to write; it must not be there, or be empty")
      ->type_name("DIR")
      ->required();
  command->add_option("--layers", options.num_layers, "Layers (default: the shape's)")
      ->check(CLI::Range(1, 4096))
      ->type_name("N");
  command->add_option("--vocab-size", options.vocab_size, "Ids (default: the shape's)")
      ->check(CLI::Range(1, 1 << 28))
      ->type_name("N");
  command->add_option("--dtype", flags->dtype, "bfloat16, float16 or float32")
      ->check(CLI::IsMember({"bfloat16", "float16", "float32"}))
      ->type_name("TYPE")
      ->capture_default_str();
  command->add_option("--seed", options.seed, "The same seed gives the same bytes")
      ->type_name("N")
      ->capture_default_str();
  command
      ->add_option("--shard-size", options.shard_bytes,
                   "Bytes of weights a file, such as 500MB or 2GiB")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 50))
      ->type_name("BYTES")
      ->capture_default_str();
  command
      ->add_option("--tokenizer", options.tokenizer_dir,
                   "Copy this directory's tokenizer.json and tokenizer_config.json\n"
                   "(default: a plain tokenizer, for Qwen3 an id a byte and one at the end)")
      ->type_name("DIR");
  command->add_option("--threads", options.num_threads, "Threads (default: every core)")
      ->check(CLI::Range(1, 1024))
      ->type_name("N");
  command->callback([flags, exit_code] {
    if (flags->options.shape.empty() && flags->options.config_file.empty()) {
      throw CLI::ValidationError("give --shape NAME or --config FILE");
    }
    *exit_code = Run(*flags);
  });
}

}  // namespace quiver
