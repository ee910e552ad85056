#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "engine/model/model_shapes.h"
#include "engine/model/model_tensors.h"
#include "engine/model/random_weights.h"
#include "engine/model/weights.h"
#include "engine/run/create_backend.h"
#include "kernels/cpu/thread_pool.h"
#include "tools/quiver/bench_report.h"
#include "tools/quiver/command_line.h"
#include "tools/quiver/device_ceilings.h"
#include "tools/quiver/device_monitor.h"
#include "tools/quiver/engine_bench.h"
#include "tools/quiver/find_model.h"
#include "tools/quiver/progress.h"
#include "tools/quiver/work_flags.h"

namespace quiver {
namespace {

// What most int4 checkpoints have.
constexpr int kInt4Group = 128;
constexpr char kDefaultShape[] = "qwen3-embedding-4b";
constexpr char kDefaultRows[] = "64x512,mixed,1x32768,1x32,32x32";
constexpr char kModelGroup[] = "Model (--shape, or --model)";
constexpr char kDeviceGroup[] = "Device";

struct BenchFlags {
  std::string shape;
  std::string model_dir;
  std::string load_format = "auto";
  std::string quantization = "none";
  int num_layers = 0;
  std::string rows = kDefaultRows;
  int batch_tokens = 0;
  double seconds = 5;
  bool no_ceilings = false;
  std::string json_file;
  std::string dtype = "bfloat16";
  BackendOptions backend;

  bool dummy() const { return !shape.empty() || load_format == "dummy"; }
};

// Reads every file of a checkpoint, so that loading it does not wait for the disk.
void FillPageCache(const std::string& model_dir, Progress* progress) {
  std::vector<char> buffer(16 << 20);
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(model_dir, error)) {
    if (!absl::EndsWith(entry.path().string(), ".safetensors")) continue;
    progress->Show(absl::StrCat("reading ", entry.path().string(), " into the page cache"));
    std::ifstream file(entry.path(), std::ios::binary);
    while (file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()))) {
    }
  }
}

absl::StatusOr<ModelConfig> ReadConfig(const BenchFlags& flags) {
  absl::StatusOr<ModelConfig> config =
      flags.shape.empty() ? LoadModelConfig(flags.model_dir) : NamedModelShape(flags.shape);
  if (config.ok() && flags.num_layers > 0) config->num_layers = flags.num_layers;
  return config;
}

// The backend, and in *report how it came about. Random weights for a CPU lie in host memory, those
// for a CUDA device are made on it.
absl::StatusOr<std::unique_ptr<Backend>> Load(const BenchFlags& flags, bool on_cpu, int longest,
                                              BenchReport* report) {
  const absl::Time start = absl::Now();
  absl::StatusOr<ModelConfig> config = ReadConfig(flags);
  if (!config.ok()) return config.status();
  std::shared_ptr<const Weights> weights;
  if (!flags.dummy()) {
    absl::StatusOr<std::unique_ptr<Weights>> opened = Weights::Open(flags.model_dir);
    if (!opened.ok()) return opened.status();
    weights = *std::move(opened);
  } else if (on_cpu) {
    cpu::ThreadPool pool(flags.backend.num_threads > 0 ? flags.backend.num_threads
                                                       : cpu::AvailableCores());
    absl::StatusOr<std::shared_ptr<const Weights>> made = RandomWeights(
        *config, flags.dtype == "float16" ? DType::kF16 : DType::kBF16, /*seed=*/1, &pool);
    if (!made.ok()) return made.status();
    weights = *std::move(made);
  }
  if (flags.quantization != "none" && (!flags.dummy() || on_cpu)) {
    return absl::InvalidArgumentError(
        "--quantization is for random weights on a CUDA device; a checkpoint says its own");
  }
  BackendOptions options = flags.backend;
  options.cuda.dummy_weights = flags.dummy();
  if (flags.quantization == "int4") options.cuda.dummy_int4_group = kInt4Group;
  options.cuda.dummy_fp8 = flags.quantization == "fp8";
  options.max_batch_tokens = flags.batch_tokens;
  // A row that is too long for the model is told apart later; the others run.
  options.max_input_tokens = std::min(longest, config->max_positions);
  absl::StatusOr<std::unique_ptr<Backend>> backend = CreateBackend(*config, weights, options);
  if (!backend.ok()) return backend.status();

  report->load_s = absl::ToDoubleSeconds(absl::Now() - start);
  report->model = flags.shape.empty() ? flags.model_dir : flags.shape;
  report->config = *config;
  if (flags.quantization != "none") report->config.quantization = flags.quantization;
  report->dtype = flags.dtype;
  report->random_weights = flags.dummy();
  for (const ModelTensor& tensor : ModelTensors(*config)) {
    report->weight_bytes += tensor.num_elements() * 2;
  }
  if (weights != nullptr) report->weight_bytes = weights->num_bytes();
  report->backend = (*backend)->info();
  if (flags.quantization != "none") {
    for (const MemoryUse& use : report->backend.memory) {
      if (use.purpose == "weights") report->weight_bytes = use.bytes;
    }
  }
  return backend;
}

int Run(BenchFlags flags) {
  const absl::StatusOr<std::vector<BenchRow>> rows = ParseBenchRows(flags.rows);
  if (!rows.ok()) {
    Say(absl::StrCat("--rows: ", rows.status().message()));
    return kExitUsage;
  }
  int longest = 0;
  for (const BenchRow& row : *rows) longest = std::max(longest, row.max_length());

  if (!flags.model_dir.empty()) {
    absl::StatusOr<ResolvedModel> model = FindModel(flags.model_dir);
    if (!model.ok()) return ReportFailure(model.status());
    flags.model_dir = std::move(model->dir);
  }
  Progress progress;
  if (!flags.dummy()) FillPageCache(flags.model_dir, &progress);
  const DeviceChoice& device = flags.backend.device;
  std::unique_ptr<DeviceMonitor> monitor;
  if (device.kind != DeviceChoice::Kind::kCpu && BuiltWithCuda()) {
    monitor = DeviceMonitor::Open(device.ordinal);
  }
  const bool on_cpu = device.kind != DeviceChoice::Kind::kCuda && monitor == nullptr;
  std::unique_ptr<PeakMemory> peak;
  if (monitor != nullptr) peak = std::make_unique<PeakMemory>(monitor.get());

  BenchReport report;
  progress.Show("loading");
  const absl::StatusOr<std::unique_ptr<Backend>> backend = Load(flags, on_cpu, longest, &report);
  if (!backend.ok()) {
    progress.Clear();
    return ReportFailure(backend.status());
  }
  progress.Show(absl::StrFormat("ready after %.2f s: %s", report.load_s, report.backend.device));

  EngineBench bench({.config = report.config, .seconds_per_row = flags.seconds}, backend->get(),
                    monitor.get(), [&progress](absl::string_view text) { progress.Update(text); });
  for (const BenchRow& row : *rows) bench.WarmUp(row);
  if (monitor != nullptr) {
    report.device_name = monitor->name();
    report.driver_version = monitor->driver_version();
    report.process_bytes = monitor->ProcessBytes();
    report.peak_bytes = peak->Stop();
  }
  std::unique_ptr<DeviceCeilings> ceilings;
#if QUIVER_HAS_CUDA
  if (!on_cpu && !flags.no_ceilings) {
    progress.Show("choosing algorithms for the ceilings");
    absl::StatusOr<std::unique_ptr<DeviceCeilings>> made =
        CreateCudaCeilings(flags.backend.device.ordinal, report.config, flags.backend.cuda.dtype);
    // The rows are worth having without.
    if (!made.ok()) Say(made.status().ToString());
    if (made.ok()) ceilings = *std::move(made);
  }
#endif
  bench.SetCeilings(ceilings.get());

  report.seconds_per_row = flags.seconds;
  int exit_code = kExitOk;
  for (const BenchRow& row : *rows) {
    report.rows.push_back(bench.Measure(row));
    if (!report.rows.back().status.ok()) exit_code = kExitFailure;
  }
  progress.Clear();
  if (!flags.json_file.empty()) {
    std::ofstream file(flags.json_file);
    file << BenchJson(report).dump(1) << "\n";
    if (!file.flush()) {
      Say(absl::StrCat(flags.json_file, ": cannot be written"));
      exit_code = kExitFailure;
    }
  }
  return std::max(exit_code, Print(BenchTable(report)));
}

// An option whose text `parse` turns into a value, or nothing.
template <typename Parse, typename T>
void AddParsed(CLI::App* command, const char* flag, const char* type, Parse parse,
               const char* allowed, T* target, const std::string& help) {
  command
      ->add_option_function<std::string>(
          flag,
          [=](const std::string& text) {
            const auto value = parse(text);
            if (!value.has_value()) {
              throw CLI::ValidationError(flag,
                                         absl::StrCat("must be ", allowed, ", is '", text, "'"));
            }
            *target = *value;
          },
          help)
      ->type_name(type)
      ->group(kDeviceGroup);
}

void AddEngineFlags(CLI::App* command, BenchFlags* flags) {
  CLI::Option* shape = command
                           ->add_option("--shape", flags->shape,
                                        absl::StrCat("Random weights of a public model's shape:\n",
                                                     absl::StrJoin(ModelShapeNames(), ", "),
                                                     "\n(default: ", kDefaultShape, ")"))
                           ->check(CLI::IsMember(ModelShapeNames()))
                           ->type_name("NAME")
                           ->group(kModelGroup);
  command
      ->add_option("--model", flags->model_dir,
                   "A Hugging Face directory, or a model's name at the hub")
      ->excludes(shape)
      ->type_name("DIR")
      ->group(kModelGroup);
  command
      ->add_option("--load-format", flags->load_format,
                   "auto: the weights of --model; dummy: random ones of its config.json's shape")
      ->check(CLI::IsMember({"auto", "dummy"}))
      ->type_name("FORMAT")
      ->capture_default_str()
      ->group(kModelGroup);
  command
      ->add_option(
          "--quantization", flags->quantization,
          "Of random weights on a CUDA device: none, fp8, or int4 with scales for groups of 128")
      ->check(CLI::IsMember({"none", "int4", "fp8"}))
      ->type_name("SCHEME")
      ->capture_default_str()
      ->group(kModelGroup);
  command->add_option("--layers", flags->num_layers, "Layers (default: the model's)")
      ->check(CLI::Range(1, 4096))
      ->type_name("N")
      ->group(kModelGroup);
  command
      ->add_option("--rows", flags->rows,
                   "SEQUENCESxTOKENS, or mixed: 2048 documents of log-normal lengths (median 180,\n"
                   "at most 2048), packed in order into batches; random ids")
      ->type_name("ROW,...")
      ->capture_default_str()
      ->group(kWorkGroup);
  command
      ->add_option("--batch-tokens", flags->batch_tokens,
                   "Tokens of the largest batch (default: the backend's choice)")
      ->check(CLI::Range(1, 1 << 24))
      ->type_name("N")
      ->group(kWorkGroup);
  command->add_option("--seconds", flags->seconds, "Time that each row's passes take in all")
      ->check(CLI::Range(0.0, 3600.0))
      ->type_name("S")
      ->capture_default_str()
      ->group(kWorkGroup);
  command->add_flag("--no-ceilings", flags->no_ceilings, "Do not measure what the device could do")
      ->group(kWorkGroup);
  command->add_option("--json", flags->json_file, "Write everything to this file, too")
      ->type_name("FILE")
      ->group(kOutputGroup);

  CudaOptions* cuda = &flags->backend.cuda;
  AddParsed(command, "--device", "DEVICE", ParseDeviceChoice, kDeviceChoices,
            &flags->backend.device, absl::StrCat(kDeviceChoices, " (default: auto)"));
  command->add_option("--dtype", flags->dtype, "Type of the weights on a CUDA device")
      ->check(CLI::IsMember({"bfloat16", "float16"}))
      ->type_name("TYPE")
      ->capture_default_str()
      ->group(kDeviceGroup);
  AddParsed(
      command, "--activation", "TYPE", ParseActivationType, kActivationTypes, &cuda->activation,
      absl::StrCat("What quantized weights are multiplied by, in large batches: ", kActivationTypes,
                   "\n(default: auto, FP8 where they are FP8)"));
  AddParsed(command, "--memory-budget", "MEMORY", ParseMemoryBudget, kMemoryBudgets,
            &cuda->memory_budget,
            absl::StrCat("Device memory to take: ", kMemoryBudgets, "\n(default: nearly all)"));
  command
      ->add_flag("--force-portable", cuda->force_portable, "Use the kernels for every CUDA device")
      ->group(kDeviceGroup);
  command
      ->add_option("--cache-dir", cuda->cache_dir,
                   "Where measured algorithms are kept (default: the user's cache folder)")
      ->type_name("DIR")
      ->group(kDeviceGroup);
  command
      ->add_option("--threads", flags->backend.num_threads,
                   "Threads that compute on a CPU (default: every core)")
      ->check(CLI::Range(1, cpu::AvailableCores()))
      ->type_name("N")
      ->group(kDeviceGroup);
}

}  // namespace

void AddBenchCommand(CLI::App* app, int* exit_code) {
  CLI::App* bench = app->add_subcommand("bench", "Measure speed");
  bench->require_subcommand(1);
  AddBenchServeCommand(bench, exit_code);
  CLI::App* command = bench->add_subcommand(
      "engine", "Measure the engine alone: ids in host memory to vectors in host memory");
  command->footer(
      "On a CUDA device every row stands beside ceilings measured between its passes: cuBLASLt's\n"
      "best algorithms at the model's linear layers (linear/s, in tokens), and a floor made of "
      "the\n"
      "row's operations at the rate of a product of 8192 cubed, or of its weights read once at "
      "the\n"
      "rate of a copy. Of the steps in which a pass can be interrupted: the median and the "
      "longest,\n"
      "as the device timed them. MHz is the median clock of the multiprocessors after a row's "
      "passes.");
  auto flags = std::make_shared<BenchFlags>();
  AddEngineFlags(command, flags.get());
  command->callback([flags, exit_code] {
    if (flags->shape.empty() && flags->model_dir.empty()) flags->shape = kDefaultShape;
    flags->backend.cuda.dtype = *ParseComputeType(flags->dtype);
    *exit_code = Run(*flags);
  });
}

}  // namespace quiver
