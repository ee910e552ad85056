#ifndef QUIVER_SERVER_PROCESS_METRICS_H_
#define QUIVER_SERVER_PROCESS_METRICS_H_

#include <cstdint>

#include "absl/time/time.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/registry.h"

namespace quiver {

// What the kernel says of this process; 0 where it says nothing.
struct ProcessState {
  absl::Duration cpu_time;
  int64_t resident_bytes = 0;
  int64_t virtual_bytes = 0;
  int64_t threads = 0;
  int64_t open_fds = 0;
  int64_t max_fds = 0;
  absl::Time start_time;
};
ProcessState ReadProcessState();

// The same under the names that Prometheus' client libraries agree on.
class ProcessMetrics {
 public:
  explicit ProcessMetrics(prometheus::Registry* registry);
  // One call at a time.
  void Refresh();

 private:
  prometheus::Counter* cpu_seconds_;
  prometheus::Gauge* resident_bytes_;
  prometheus::Gauge* virtual_bytes_;
  prometheus::Gauge* threads_;
  prometheus::Gauge* open_fds_;
  prometheus::Gauge* max_fds_;
  prometheus::Gauge* start_time_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_PROCESS_METRICS_H_
