// Everything that /metrics shows.
//
// Names begin with quiver_ and are in base units. Every series is there from the first scrape, but
// for those whose labels are known once the model is loaded: quiver_model_info,
// quiver_device_memory_*, and quiver_gpu_* where the machine has NVIDIA cards. Clients cannot add
// any.
#ifndef QUIVER_SERVER_METRICS_H_
#define QUIVER_SERVER_METRICS_H_

#include <array>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/embedder.h"
#include "prometheus/registry.h"
#include "server/device_metrics.h"
#include "server/gpu_monitor.h"
#include "server/http_server.h"
#include "server/process_metrics.h"
#include "server/request_metrics.h"
#include "server/scheduler_metrics.h"
#include "server/serving_state.h"
#include "server/span_exporter.h"

namespace quiver {

// Thread-safe. Must outlive the doors and the embedder that it observes.
class Metrics {
 public:
  // Content-Type of Scrape().
  static constexpr char kContentType[] = "text/plain; version=0.0.4; charset=utf-8";

  // `monitor` may be null.
  explicit Metrics(std::unique_ptr<GpuMonitor> monitor);

  RequestObserver* request_observer() { return &requests_; }
  SchedulerObserver* scheduler_observer() { return &scheduler_; }

  // Once, when the model is ready.
  void SetModel(const ModelInfo& info, absl::Duration load_time);

  // In Prometheus' text format.
  std::string Scrape(const ServingState& state, const HttpServer::Stats& http,
                     const SpanExporter::Stats& spans);

 private:
  void AddHttpSeries();
  void AddTraceSeries();

  prometheus::Registry registry_;
  RequestMetrics requests_;
  SchedulerMetrics scheduler_;
  ProcessMetrics process_;
  DeviceMetrics device_;
  std::array<prometheus::Gauge*, 3> phases_;
  prometheus::Gauge* weight_bytes_;
  prometheus::Gauge* load_seconds_;
  prometheus::Gauge* http_connections_ = nullptr;
  prometheus::Counter* http_accepted_ = nullptr;
  prometheus::Counter* http_refused_ = nullptr;
  // As kHttpStatuses lists them.
  std::array<prometheus::Counter*, kHttpStatuses.size()> http_responses_ = {};
  prometheus::Counter* spans_exported_ = nullptr;
  prometheus::Counter* spans_failed_ = nullptr;
  prometheus::Counter* spans_dropped_ = nullptr;
  // One scrape at a time.
  absl::Mutex mutex_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_METRICS_H_
