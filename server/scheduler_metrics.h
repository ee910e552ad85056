#ifndef QUIVER_SERVER_SCHEDULER_METRICS_H_
#define QUIVER_SERVER_SCHEDULER_METRICS_H_

#include <array>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/schedule/scheduler.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "server/sliding_window.h"

namespace quiver {

// What the scheduler and the device do: batches, drops, queues. Every series exists from
// construction on.
class SchedulerMetrics : public SchedulerObserver {
 public:
  explicit SchedulerMetrics(prometheus::Registry* registry);

  void OnBatch(const BatchReport& report) override;
  void OnJoined(Lane lane) override { SeriesOf(lane).joined->Increment(); }
  void OnDropped(Lane lane, DropPoint where, absl::StatusCode code) override;

  // Brings the queues and the device's business up to date. One call at a time.
  void Refresh(const QueueSnapshot& snapshot);

 private:
  // The codes that a drop may have, and one for the rest.
  static constexpr int kNumDropCodes = 5;

  struct LaneSeries {
    prometheus::Counter* batches_ok = nullptr;
    prometheus::Counter* batches_failed = nullptr;
    prometheus::Counter* overtakes = nullptr;
    prometheus::Counter* joined = nullptr;
    prometheus::Counter* prefix_hits = nullptr;
    prometheus::Counter* prefix_tokens = nullptr;
    prometheus::Histogram* tokens = nullptr;
    prometheus::Histogram* sequences = nullptr;
    prometheus::Histogram* occupancy = nullptr;
    prometheus::Histogram* duration = nullptr;
    prometheus::Histogram* predicted = nullptr;
    prometheus::Histogram* actual_to_predicted = nullptr;
    prometheus::Histogram* gap = nullptr;
    std::array<std::array<prometheus::Counter*, kNumDropCodes>, kNumDropPoints> drops = {};

    prometheus::Gauge* queued_items = nullptr;
    prometheus::Gauge* queued_tokens = nullptr;
    prometheus::Gauge* queued_tenants = nullptr;
    prometheus::Gauge* oldest_age = nullptr;
    prometheus::Gauge* predicted_wait = nullptr;
    prometheus::Gauge* running_items = nullptr;
    prometheus::Gauge* running_tokens = nullptr;
  };

  void AddBatchSeries(prometheus::Registry* registry);
  void AddDropSeries(prometheus::Registry* registry);
  void AddQueueSeries(prometheus::Registry* registry);
  LaneSeries& SeriesOf(Lane lane) { return lanes_[static_cast<size_t>(lane)]; }

  std::array<LaneSeries, kNumLanes> lanes_;
  prometheus::Counter* busy_seconds_ = nullptr;
  prometheus::Gauge* busy_ratio_ = nullptr;
  prometheus::Gauge* load_ratio_ = nullptr;
  SlidingSum busy_window_;
  SlidingSum load_window_;
  absl::Mutex mutex_;
  // Of passes that have ended.
  absl::Duration busy_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quiver

#endif  // QUIVER_SERVER_SCHEDULER_METRICS_H_
