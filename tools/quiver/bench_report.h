#ifndef QUIVER_TOOLS_QUIVER_BENCH_REPORT_H_
#define QUIVER_TOOLS_QUIVER_BENCH_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/run/backend.h"
#include "nlohmann/json.hpp"
#include "tools/quiver/engine_bench.h"

namespace quiver {

// What a bench of an engine has found out.
struct BenchReport {
  // "qwen3-embedding-4b", or a directory.
  std::string model;
  ModelConfig config;
  // "bfloat16".
  std::string dtype;
  bool random_weights = false;
  int64_t weight_bytes = 0;
  BackendInfo backend;
  // The card and its driver; empty on a CPU.
  std::string device_name;
  std::string driver_version;

  // From the first look at the model's files to a backend that can run; with those files in the
  // page cache.
  double load_s = 0;
  // Device memory of this process once it has run every row, before ceilings are measured: as the
  // driver counts it for the process, and the most by which the device's rose. -1 if not known.
  int64_t process_bytes = -1;
  int64_t peak_bytes = -1;

  double seconds_per_row = 0;
  std::vector<RowResult> rows;
};

// Columns for people.
std::string BenchTable(const BenchReport& report);

// Everything, with the date (UTC); transformers_peer.py writes the same form.
nlohmann::ordered_json BenchJson(const BenchReport& report);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_BENCH_REPORT_H_
