#include "server/metrics.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "prometheus/text_serializer.h"
#include "server/metric_names.h"
#include "server/version.h"

namespace quiver {
namespace {

constexpr const char* kPhases[] = {"starting", "serving", "draining"};

// Brings a counter up to a number that somebody else counts.
void CatchUp(prometheus::Counter* counter, int64_t count) {
  counter->Increment(std::max(0.0, static_cast<double>(count) - counter->Value()));
}

}  // namespace

Metrics::Metrics(std::unique_ptr<GpuMonitor> monitor)
    : requests_(&registry_),
      scheduler_(&registry_),
      process_(&registry_),
      device_(&registry_, std::move(monitor)) {
  AddGauges(&registry_, "quiver_build_info", "The program; always 1.")
      .Add({{"version", kServerVersion}, {"compiler", __VERSION__}})
      .Set(1);
  auto& phase = AddGauges(&registry_, "quiver_serving_phase",
                          "1 for the phase that the process is in, 0 for the others.");
  for (size_t i = 0; i < phases_.size(); ++i) phases_[i] = &phase.Add({{"phase", kPhases[i]}});
  weight_bytes_ =
      &AddGauges(&registry_, "quiver_model_weight_bytes", "Size of the weights.").Add({});
  load_seconds_ = &AddGauges(&registry_, "quiver_model_load_seconds",
                             "Time that loading and warming up took; 0 until then.")
                       .Add({});
  AddHttpSeries();
  AddTraceSeries();
}

void Metrics::AddTraceSeries() {
  spans_exported_ = &AddCounters(&registry_, "quiver_trace_spans_exported_total",
                                 "Spans of traces that the collector took.")
                         .Add({});
  spans_failed_ =
      &AddCounters(&registry_, "quiver_trace_spans_failed_total",
                   "Spans that the collector refused, or did not take in several tries.")
           .Add({});
  spans_dropped_ = &AddCounters(&registry_, "quiver_trace_spans_dropped_total",
                                "Spans that were never sent, as too many waited already.")
                        .Add({});
}

void Metrics::AddHttpSeries() {
  http_connections_ =
      &AddGauges(&registry_, "quiver_http_connections", "HTTP connections that are open.").Add({});
  http_accepted_ = &AddCounters(&registry_, "quiver_http_accepted_connections_total",
                                "HTTP connections accepted.")
                        .Add({});
  http_refused_ = &AddCounters(&registry_, "quiver_http_refused_connections_total",
                               "HTTP connections refused, being too many.")
                       .Add({});
  auto& responses =
      AddCounters(&registry_, "quiver_http_responses_total", "HTTP responses by status.");
  for (size_t i = 0; i < http_responses_.size(); ++i) {
    http_responses_[i] = &responses.Add({{"status", absl::StrCat(kHttpStatuses[i])}});
  }
}

void Metrics::SetModel(const ModelInfo& info, absl::Duration load_time) {
  weight_bytes_->Set(static_cast<double>(info.weight_bytes));
  load_seconds_->Set(absl::ToDoubleSeconds(load_time));
  absl::MutexLock lock(&mutex_);
  device_.SetBackend(info.backend);
  AddGauges(&registry_, "quiver_model_info", "The model being served; always 1.")
      .Add({{"model", info.name},
            {"architecture", FamilyName(info.config.family)},
            {"weight_type", info.weight_type},
            {"quantization", info.config.quantization},
            {"device", info.backend.device},
            {"fingerprint", info.space_fingerprint}})
      .Set(1);
}

std::string Metrics::Scrape(const ServingState& state, const HttpServer::Stats& http,
                            const SpanExporter::Stats& spans) {
  absl::MutexLock lock(&mutex_);
  requests_.Refresh();
  const Embedder* embedder = state.embedder();
  scheduler_.Refresh(embedder == nullptr ? QueueSnapshot() : embedder->Snapshot());
  process_.Refresh();
  device_.Refresh();
  for (size_t i = 0; i < phases_.size(); ++i) {
    phases_[i]->Set(i == static_cast<size_t>(state.phase()) ? 1 : 0);
  }
  http_connections_->Set(static_cast<double>(http.open_connections));
  CatchUp(http_accepted_, http.accepted_connections);
  CatchUp(http_refused_, http.refused_connections);
  for (size_t i = 0; i < http_responses_.size(); ++i) {
    CatchUp(http_responses_[i], http.responses[i]);
  }
  CatchUp(spans_exported_, spans.exported);
  CatchUp(spans_failed_, spans.failed);
  CatchUp(spans_dropped_, spans.dropped);
  return prometheus::TextSerializer().Serialize(registry_.Collect());
}

}  // namespace quiver
