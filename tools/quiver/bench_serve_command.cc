#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/quiver/command_line.h"
#include "tools/quiver/load_generator.h"
#include "tools/quiver/output_file.h"
#include "tools/quiver/progress.h"
#include "tools/quiver/remote_executor.h"
#include "tools/quiver/serve_report.h"
#include "tools/quiver/work_flags.h"

namespace quiver {
namespace {

constexpr char kDefaultWorkload[] = "name=query,rate=10,tokens=32";

struct ServeFlags {
  std::string server;
  ConnectionFlags connection;
  double wait_seconds = 0;
  std::vector<std::string> workloads = {kDefaultWorkload};
  std::vector<double> sweep;
  double seconds = 10;
  double warm_up_seconds = 2;
  double patience_seconds = 30;
  LoadOptions load;
  std::string texts_file;
  std::string json_file;
  std::string svg_file;
};

// The lines of a file that are not empty.
absl::StatusOr<std::vector<std::string>> ReadLines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  if (file.bad() || lines.empty()) {
    return absl::NotFoundError(absl::StrCat(path, ": there is no text to read"));
  }
  return lines;
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  absl::StatusOr<std::unique_ptr<OutputFile>> file =
      OutputFile::Open(path, OutputFile::Mode::kWhole);
  if (!file.ok()) return file.status();
  if (absl::Status status = (*file)->Write(text); !status.ok()) return status;
  return (*file)->Close();
}

int Run(const ServeFlags& flags) {
  std::vector<Workload> workloads;
  for (const std::string& text : flags.workloads) {
    absl::StatusOr<Workload> workload = ParseWorkload(text);
    if (!workload.ok()) {
      Say(absl::StrCat("--workload '", text, "': ", workload.status().message()));
      return kExitUsage;
    }
    workloads.push_back(*std::move(workload));
  }
  if (!flags.sweep.empty() && !workloads[0].open()) {
    Say(absl::StrCat("--sweep: is of rates, but ", workloads[0].name, " has none"));
    return kExitUsage;
  }
  LoadOptions load = flags.load;
  if (!flags.texts_file.empty()) {
    if (std::none_of(workloads.begin(), workloads.end(), [](const auto& w) { return w.text; })) {
      Say("--texts: no --workload sends texts; add `text` to one");
      return kExitUsage;
    }
    absl::StatusOr<std::vector<std::string>> lines = ReadLines(flags.texts_file);
    if (!lines.ok()) return ReportFailure(lines.status());
    load.lines = std::make_shared<const std::vector<std::string>>(*std::move(lines));
  }
  load.server = flags.server;
  load.connection = flags.connection;
  load.warm_up = absl::Seconds(flags.warm_up_seconds);
  load.duration = absl::Seconds(flags.seconds);
  load.patience = absl::Seconds(flags.patience_seconds);

  ServeReport report;
  report.server = flags.server;
  absl::StatusOr<v1::ModelInfo> info = RemoteExecutor({.server = flags.server,
                                                       .connection = flags.connection,
                                                       .wait = absl::Seconds(flags.wait_seconds)})
                                           .Describe();
  if (!info.ok()) return ReportFailure(info.status());
  report.model = *std::move(info);

  Progress progress;
  const size_t runs = flags.sweep.empty() ? 1 : flags.sweep.size();
  for (size_t i = 0; i < runs; ++i) {
    if (!flags.sweep.empty()) workloads[0].rate = flags.sweep[i];
    progress.Show(
        absl::StrFormat("run %d of %d: %g s", i + 1, runs, flags.warm_up_seconds + flags.seconds));
    absl::StatusOr<std::vector<LoadResult>> run = RunLoad(load, report.model, workloads);
    if (!run.ok()) {
      progress.Clear();
      return ReportFailure(run.status());
    }
    report.runs.push_back(*std::move(run));
    ++load.seed;
  }
  progress.Clear();
  absl::Status written;
  if (!flags.json_file.empty()) {
    written.Update(WriteFile(flags.json_file, ServeJson(report).dump(1) + "\n"));
  }
  if (!flags.svg_file.empty()) written.Update(WriteFile(flags.svg_file, LatencyChart(report)));
  const int printed = Print(ServeTable(report));
  return written.ok() ? printed : ReportFailure(written);
}

}  // namespace

void AddBenchServeCommand(CLI::App* bench, int* exit_code) {
  CLI::App* command = bench->add_subcommand("serve", "Measure a running server under load");
  command->footer(
      "Requests of an open loop are sent when they are due, whatever became of those before them, "
      "and\n"
      "latency counts from then. `late` is how long after that this program sent them: where it is "
      "not\n"
      "small, the client was the bottleneck. Inputs are random token ids, which the server does "
      "not\n"
      "tokenize, or texts. A refusal is no failure of the run; its exit code is 0.");
  auto flags = std::make_shared<ServeFlags>();
  CLI::Option* server =
      command->add_option("--server", flags->server, "HOST:PORT")->required()->type_name("ADDRESS");
  flags->connection.AddTo(command, server);
  command->add_option("--wait", flags->wait_seconds, "Wait this long for the server to be up")
      ->check(CLI::Range(0.0, 86'400.0))
      ->type_name("S");
  command
      ->add_option("--workload", flags->workloads,
                   absl::StrCat("May be given several times: KEY=VALUE,... with\n", kWorkloadKeys))
      ->type_name("WORKLOAD")
      ->capture_default_str()
      ->group(kWorkGroup);
  command
      ->add_option("--texts", flags->texts_file,
                   "What workloads with `text` send: this file's lines, at random (default: words)")
      ->check(CLI::ExistingFile)
      ->type_name("FILE")
      ->group(kWorkGroup);
  command
      ->add_option("--sweep", flags->sweep, "One run for each of these rates of the first workload")
      ->delimiter(',')
      ->check(CLI::Range(1e-3, 1e6))
      ->type_name("RATE,...")
      ->group(kWorkGroup);
  const auto seconds = [&](const char* flag, double* target, double least, const char* help) {
    command->add_option(flag, *target, help)
        ->check(CLI::Range(least, 86'400.0))
        ->type_name("S")
        ->capture_default_str()
        ->group(kWorkGroup);
  };
  seconds("--seconds", &flags->seconds, 0.01, "Length of the part of a run that counts");
  seconds("--warm-up", &flags->warm_up_seconds, 0, "Time before it");
  seconds("--patience", &flags->patience_seconds, 0,
          "How long answers are waited for after it; then they are CANCELLED");
  command
      ->add_option("--connections", flags->load.connections,
                   "Connections that requests share; each stream has its own")
      ->check(CLI::Range(1, 1024))
      ->type_name("N")
      ->capture_default_str()
      ->group(kWorkGroup);
  command->add_option("--seed", flags->load.seed, "Of arrivals and inputs")
      ->type_name("N")
      ->capture_default_str()
      ->group(kWorkGroup);
  command->add_option("--json", flags->json_file, "Write everything to this file, too")
      ->type_name("FILE")
      ->group(kOutputGroup);
  command
      ->add_option("--svg", flags->svg_file,
                   "Draw the first workload's latency against its rate into this file")
      ->type_name("FILE")
      ->group(kOutputGroup);
  command->callback([flags, exit_code] { *exit_code = Run(*flags); });
}

}  // namespace quiver
