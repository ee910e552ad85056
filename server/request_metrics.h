#ifndef QUIVER_SERVER_REQUEST_METRICS_H_
#define QUIVER_SERVER_REQUEST_METRICS_H_

#include <array>

#include "absl/time/time.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "server/request_observer.h"
#include "server/sliding_window.h"

namespace quiver {

// Counts and times of requests. Every series exists from construction on; a client can add none.
class RequestMetrics : public RequestObserver {
 public:
  explicit RequestMetrics(prometheus::Registry* registry);

  void OnRequestStart(Rpc rpc) override;
  void OnItems(Rpc rpc, Lane lane, const ItemCounts& items) override;
  void OnRequestEnd(const RequestReport& report) override;

  // Brings the quantiles of the sliding window up to date.
  void Refresh();

 private:
  static constexpr std::array<double, 3> kQuantiles = {0.50, 0.95, 0.99};

  // One RPC in one lane. What an RPC does not do has no series: null.
  struct Series {
    std::array<prometheus::Counter*, kNumCodes> requests = {};
    prometheus::Counter* succeeded = nullptr;
    prometheus::Counter* failed = nullptr;
    prometheus::Counter* truncated = nullptr;
    prometheus::Counter* tokens = nullptr;
    prometheus::Histogram* duration = nullptr;
    prometheus::Histogram* tokenize = nullptr;
    prometheus::Histogram* queue = nullptr;
    prometheus::Histogram* compute = nullptr;
    SlidingQuantiles window;
    std::array<prometheus::Gauge*, kQuantiles.size()> quantiles = {};
  };

  Series& SeriesOf(Rpc rpc, Lane lane);

  // By lane, whatever the RPC.
  struct LaneSeries {
    std::array<prometheus::Counter*, kNumCodes> failed_items = {};
    prometheus::Counter* unusable_vectors = nullptr;
  };

  // Indexed by RPC and lane; RPCs without lanes use the first alone.
  std::array<std::array<Series, kNumLanes>, kNumRpcs> series_;
  std::array<LaneSeries, kNumLanes> lanes_;
  std::array<prometheus::Gauge*, kNumRpcs> in_flight_ = {};
};

}  // namespace quiver

#endif  // QUIVER_SERVER_REQUEST_METRICS_H_
