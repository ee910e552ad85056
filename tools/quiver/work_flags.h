// The flags of every command that works on inputs: what to read, who does the work, and how.
#ifndef QUIVER_TOOLS_QUIVER_WORK_FLAGS_H_
#define QUIVER_TOOLS_QUIVER_WORK_FLAGS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model/quantization_config.h"
#include "engine/run/device_options.h"
#include "tools/quiver/connection.h"
#include "tools/quiver/executor.h"
#include "tools/quiver/input_source.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace quiver {

// The group in --help of what decides how inputs are worked on.
inline constexpr char kWorkGroup[] = "Work";
// The group of where results go, and how.
inline constexpr char kOutputGroup[] = "Output";

// Where the work is done.
struct ExecutorFlags {
  std::string model;
  int num_threads = 0;
  DeviceChoice device;
  CudaOptions cuda;
  QuantizationChoice quantization = QuantizationChoice::kAuto;
  std::string server;
  ConnectionFlags connection;
  double wait_seconds = 0;
  // Not a flag of every command.
  bool fingerprint = true;

  void AddTo(CLI::App* command, bool with_threads);
  // After parsing: throws CLI::ValidationError unless one of --model and --server was given.
  void Check() const;
  std::unique_ptr<Executor> Make() const;

 private:
  void AddDeviceTo(CLI::App* command, CLI::Option* local);
};

struct WorkFlags {
  std::vector<std::string> texts;
  std::string input;
  std::string input_format = "auto";
  ExecutorFlags executor;
  RequestOptions request;
  std::string truncate;
  double deadline_seconds = 0;

  void AddTo(CLI::App* command, bool with_threads);
  // After parsing: as ExecutorFlags::Check, and unless there is something to work on.
  void Check() const;
  absl::StatusOr<std::unique_ptr<InputSource>> OpenSource() const;
  // The deadline counts from this call.
  WorkOptions Options() const;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_WORK_FLAGS_H_
