#ifndef QUIVER_SERVER_DEVICE_METRICS_H_
#define QUIVER_SERVER_DEVICE_METRICS_H_

#include <map>
#include <memory>
#include <string>

#include "engine/run/backend.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/registry.h"
#include "server/gpu_monitor.h"

namespace quiver {

// The memory that the backend took, by purpose, and the cards of the machine. Calls are made one at
// a time.
class DeviceMetrics {
 public:
  // `monitor` may be null: then there are no series of cards.
  DeviceMetrics(prometheus::Registry* registry, std::unique_ptr<GpuMonitor> monitor);

  // Once, when the model is loaded. From now on only the backend's own card is shown, if it runs on
  // one that the monitor sees.
  void SetBackend(const BackendInfo& info);

  // Brings the cards' series up to date.
  void Refresh();

 private:
  struct Card {
    prometheus::Gauge* total_bytes;
    prometheus::Gauge* used_bytes;
    prometheus::Gauge* free_bytes;
    prometheus::Gauge* utilization;
    prometheus::Gauge* power;
    prometheus::Gauge* temperature;
  };

  // Its series, added if it is new.
  const Card& CardOf(const GpuState& gpu);

  const std::unique_ptr<GpuMonitor> monitor_;
  prometheus::Family<prometheus::Gauge>& purpose_bytes_;
  prometheus::Family<prometheus::Gauge>& budget_bytes_;
  prometheus::Family<prometheus::Gauge>& memory_total_;
  prometheus::Family<prometheus::Gauge>& memory_used_;
  prometheus::Family<prometheus::Gauge>& memory_free_;
  prometheus::Family<prometheus::Gauge>& utilization_;
  prometheus::Family<prometheus::Gauge>& power_;
  prometheus::Family<prometheus::Gauge>& temperature_;
  // By UUID.
  std::map<std::string, Card> cards_;
  // The backend's, if it runs on one that is seen; then no other is shown.
  std::string own_card_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_DEVICE_METRICS_H_
