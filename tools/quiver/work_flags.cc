#include "tools/quiver/work_flags.h"

#include <limits>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/cpu/thread_pool.h"
#include "tools/quiver/local_executor.h"
#include "tools/quiver/remote_executor.h"

namespace quiver {
namespace {

constexpr double kMaxSeconds = 1e6;
constexpr char kInputGroup[] = "Input (texts as arguments, or --input)";
constexpr char kModelGroup[] = "Model (one of --model and --server)";

std::string CheckServer(std::string& server) {
  return server.find(':') == std::string::npos || server.back() == ':'
             ? absl::StrCat("must be HOST:PORT, is '", server, "'")
             : "";
}

}  // namespace

void ExecutorFlags::AddTo(CLI::App* command, bool with_threads) {
  CLI::Option* local =
      command
          ->add_option(
              "--model", model,
              "Run this Hugging Face directory in this process, or the model\nof this name "
              "at the hub, as quiver fetch finds it")
          ->type_name("DIR|NAME")
          ->group(kModelGroup);
  CLI::Option* remote = command->add_option("--server", server, "Ask this server, over gRPC")
                            ->type_name("HOST:PORT")
                            ->check(CLI::Validator(CheckServer, ""))
                            ->excludes(local)
                            ->group(kModelGroup);
  if (with_threads) {
    command
        ->add_option("--threads", num_threads,
                     "Threads that compute (default: every core this process may use)")
        ->check(CLI::Range(1, cpu::AvailableCores()))
        ->type_name("N")
        ->needs(local)
        ->group(kModelGroup);
    AddDeviceTo(command, local);
  }
  connection.AddTo(command, remote);
  command
      ->add_option("--wait", wait_seconds,
                   "Wait this long for the server to be up (default: do not wait)")
      ->check(CLI::Range(0.0, kMaxSeconds))
      ->type_name("SECONDS")
      ->needs(remote)
      ->group(kModelGroup);
}

void ExecutorFlags::AddDeviceTo(CLI::App* command, CLI::Option* local) {
  const auto add = [&](const std::string& flag, auto parse, auto* target,
                       const std::string& allowed, const std::string& type,
                       const std::string& help) {
    command
        ->add_option_function<std::string>(
            flag,
            [=](const std::string& text) {
              const auto value = parse(text);
              if (!value.has_value()) {
                throw CLI::ValidationError(
                    absl::StrCat(flag, " must be ", allowed, ", is '", text, "'"));
              }
              *target = *value;
            },
            help)
        ->type_name(type)
        ->needs(local)
        ->group(kModelGroup);
  };
  add("--device", ParseDeviceChoice, &device, kDeviceChoices, "DEVICE",
      absl::StrCat("Where the model runs: ", kDeviceChoices,
                   " (default: auto, the first\nCUDA device, else the CPU)"));
  add("--dtype", ParseComputeType, &cuda.dtype, kComputeTypes, "TYPE",
      absl::StrCat("Type of weights and activations on a CUDA device: ", kComputeTypes,
                   "\n(default: bfloat16)"));
  add("--activation", ParseActivationType, &cuda.activation, kActivationTypes, "TYPE",
      absl::StrCat("What quantized weights are multiplied by on a CUDA device, in large batches:\n",
                   kActivationTypes, " (default: auto, FP8 where they are FP8)"));
  add("--quantization", ParseQuantizationChoice, &quantization, kQuantizationChoices, "FORMAT",
      absl::StrCat("What the checkpoint must be: ", kQuantizationChoices,
                   "\n(default: auto); int4 and fp8 also quantize one that is stored in floats"));
  add("--memory-budget", ParseMemoryBudget, &cuda.memory_budget, kMemoryBudgets, "MEMORY",
      absl::StrCat("Most memory of the CUDA device to take: ", kMemoryBudgets,
                   "\n(default: nearly all of it)"));
}

void ExecutorFlags::Check() const {
  if (model.empty() && server.empty()) {
    throw CLI::ValidationError(
        "give --model DIR to run a model here, or --server HOST:PORT to ask a server");
  }
}

std::unique_ptr<Executor> ExecutorFlags::Make() const {
  if (!server.empty()) {
    return std::make_unique<RemoteExecutor>(RemoteExecutor::Options{
        .server = server, .connection = connection, .wait = absl::Seconds(wait_seconds)});
  }
  return std::make_unique<LocalExecutor>(LocalExecutor::Options{.model = model,
                                                                .num_threads = num_threads,
                                                                .device = device,
                                                                .cuda = cuda,
                                                                .quantization = quantization,
                                                                .fingerprint = fingerprint});
}

void WorkFlags::AddTo(CLI::App* command, bool with_threads) {
  CLI::Option* arguments =
      command
          ->add_option("texts", texts,
                       "Texts, one an argument (put -- before one that begins with -)")
          ->type_name("TEXT");
  CLI::Option* file =
      command->add_option("--input", input, "Read this file, or - for standard input")
          ->type_name("FILE")
          ->excludes(arguments)
          ->group(kInputGroup);
  command
      ->add_option("--input-format", input_format,
                   "text: one text a line, an empty line being an empty text, which fails.\n"
                   "jsonl: {\"text\": ..., \"id\": ...} a line, id (string or integer) optional,\n"
                   "blank lines skipped. auto: jsonl by the file's name (.jsonl, .ndjson) or if\n"
                   "the first line is an object with a text")
      ->check(CLI::IsMember({"auto", "text", "jsonl"}))
      ->type_name("FORMAT")
      ->capture_default_str()
      ->needs(file)
      ->group(kInputGroup);
  executor.AddTo(command, with_threads);
  CLI::Option* prompt =
      command
          ->add_option("--prompt", request.prompt_name,
                       "Put this prompt of the model before each text ('' for none)")
          ->type_name("NAME")
          ->group(kWorkGroup);
  command
      ->add_option("--instruction", request.instruction,
                   "Put the model's instruction prompt with this task before each text")
      ->type_name("TEXT")
      ->excludes(prompt)
      ->group(kWorkGroup);
  command
      ->add_option("--truncate", truncate,
                   "What becomes of a text that is too long: it fails (none), keeps its beginning\n"
                   "(right) or its end (left); default: the server's choice, none locally")
      ->check(CLI::IsMember({"none", "right", "left"}))
      ->type_name("SIDE")
      ->group(kWorkGroup);
  command
      ->add_option("--deadline", deadline_seconds,
                   "Give up what is not done this long after the start (default: never)")
      ->check(CLI::Range(0.001, kMaxSeconds))
      ->type_name("SECONDS")
      ->group(kWorkGroup);
}

void WorkFlags::Check() const {
  if (texts.empty() && input.empty()) {
    throw CLI::ValidationError("give texts as arguments, or --input FILE (- for standard input)");
  }
  executor.Check();
}

absl::StatusOr<std::unique_ptr<InputSource>> WorkFlags::OpenSource() const {
  if (input.empty()) return SourceOfTexts(texts);
  const InputFormat format = input_format == "text"    ? InputFormat::kText
                             : input_format == "jsonl" ? InputFormat::kJsonl
                                                       : InputFormat::kDetect;
  return SourceOfFile(input, format);
}

WorkOptions WorkFlags::Options() const {
  WorkOptions options;
  options.request = request;
  if (truncate == "none") options.request.truncation = Truncation::kNone;
  if (truncate == "right") options.request.truncation = Truncation::kRight;
  if (truncate == "left") options.request.truncation = Truncation::kLeft;
  options.lane = input.empty() ? Lane::kInteractive : Lane::kBulk;
  if (deadline_seconds > 0) options.deadline = absl::Now() + absl::Seconds(deadline_seconds);
  return options;
}

}  // namespace quiver
