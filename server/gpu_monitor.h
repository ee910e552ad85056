// NVIDIA cards as their driver's management library (NVML) sees them.
//
// The library is loaded when the program runs, so that neither building nor running needs it.
#ifndef QUIVER_SERVER_GPU_MONITOR_H_
#define QUIVER_SERVER_GPU_MONITOR_H_

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace quiver {

// One card, with whatever runs on it. What the driver does not tell is NaN.
struct GpuState {
  // Such as "GPU-2f3c..."; a card's name for good.
  std::string uuid;
  std::string name;
  double memory_total_bytes = 0;
  double memory_used_bytes = 0;
  double memory_free_bytes = 0;
  // Part of the driver's last sampling period in which any kernel ran.
  double utilization = 0;
  double power_watts = 0;
  double temperature_celsius = 0;
};

// Asks the driver every `period` on a thread of its own: the driver may take long to answer, or
// forever, and a scrape must not. Thread-safe.
class GpuMonitor {
 public:
  // Null if the library is not there or sees no card.
  static std::unique_ptr<GpuMonitor> Start(absl::Duration period);
  virtual ~GpuMonitor() = default;

  // As of the last answer.
  virtual std::vector<GpuState> Gpus() const = 0;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_GPU_MONITOR_H_
