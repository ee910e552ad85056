// Measures a backend directly: no sockets, no scheduler, no tokenizer.
#ifndef QUIVER_TOOLS_QUIVER_ENGINE_BENCH_H_
#define QUIVER_TOOLS_QUIVER_ENGINE_BENCH_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/model/model_config.h"
#include "engine/run/backend.h"
#include "tools/quiver/bench_rows.h"
#include "tools/quiver/device_ceilings.h"
#include "tools/quiver/device_monitor.h"

namespace quiver {

// A row and the ceilings of its turns.
struct RowResult {
  std::string name;
  // Of each sequence.
  std::vector<int> lengths;
  int64_t tokens = 0;
  int batches = 0;
  // Why there is no result; everything below is then empty.
  absl::Status status;

  // Of each pass over the row, from ids in host memory to vectors in host memory.
  std::vector<double> pass_ms;
  double median_ms = 0;
  double best_ms = 0;
  double tokens_per_s = 0;
  // Of the steps of all passes, as the device timed them; 0 where it does not.
  int64_t steps = 0;
  double median_step_ms = 0;
  double longest_step_ms = 0;

  // Medians over the row's turns; absent where there are no ceilings.
  std::optional<CeilingRates> ceilings;
  // The best of linear_tokens_per_s.
  double linear_ceiling_tokens_per_s = 0;
  // What the row would take at the ceilings' rates: for each batch its operations at the product's
  // rate, or the linear weights once at the copy's, whichever is more.
  double floor_ms = 0;

  // Medians over the row's turns, as the driver tells; 0 where it does not.
  int sm_clock_mhz = 0;
  double power_watts = 0;
};

struct EngineBenchOptions {
  ModelConfig config;
  // Bytes of a linear weight on the device.
  int weight_element_bytes = 2;
  // Time that a row's passes take in all, and those between two looks at the ceilings; each row
  // runs kMinPasses times at least.
  double seconds_per_row = 5;
  double seconds_per_turn = 0.7;
};
inline constexpr int kMinPasses = 3;

class EngineBench {
 public:
  // All that is pointed to must outlive this; `ceilings` (see SetCeilings) and `monitor` may be
  // null. `progress` is told what is going on.
  EngineBench(EngineBenchOptions options, Backend* backend, const DeviceMonitor* monitor,
              std::function<void(absl::string_view)> progress);

  // Runs a row once, as a warm-up; its errors come back in Measure.
  void WarmUp(const BenchRow& row);

  void SetCeilings(DeviceCeilings* ceilings) { ceilings_ = ceilings; }

  // Runs a row for its time, the ceilings in between. Never fails as a whole: see
  // RowResult::status.
  RowResult Measure(const BenchRow& row);

 private:
  absl::StatusOr<std::vector<PackedBatch>> Pack(const BenchRow& row) const;
  // Milliseconds of a pass over all batches; its steps' are appended to `step_ms`.
  absl::StatusOr<double> Pass(const std::vector<PackedBatch>& batches,
                              std::vector<double>* step_ms);
  double FloorMs(const std::vector<PackedBatch>& batches, const CeilingRates& rates) const;

  const EngineBenchOptions options_;
  Backend* const backend_;
  const DeviceMonitor* const monitor_;
  const std::function<void(absl::string_view)> progress_;
  DeviceCeilings* ceilings_ = nullptr;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_ENGINE_BENCH_H_
