#include "server/scheduler_metrics.h"

#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "server/metric_names.h"

namespace quiver {
namespace {

using prometheus::Histogram;
using prometheus::Labels;

constexpr Lane kLanes[] = {Lane::kInteractive, Lane::kBulk};
constexpr const char* kDropPlaces[kNumDropPoints] = {"tokenizing", "admission", "queue", "running"};
constexpr absl::StatusCode kDropCodes[] = {
    absl::StatusCode::kCancelled, absl::StatusCode::kDeadlineExceeded,
    absl::StatusCode::kResourceExhausted, absl::StatusCode::kUnavailable};

Labels LaneLabel(Lane lane) { return {{"lane", std::string(LaneName(lane))}}; }

Histogram::BucketBoundaries PowersOfTwo(int first, int last) {
  Histogram::BucketBoundaries buckets;
  for (int exponent = first; exponent <= last; ++exponent) buckets.push_back(1 << exponent);
  return buckets;
}

}  // namespace

SchedulerMetrics::SchedulerMetrics(prometheus::Registry* registry) {
  AddBatchSeries(registry);
  AddDropSeries(registry);
  AddQueueSeries(registry);
  Refresh(QueueSnapshot());
}

void SchedulerMetrics::AddBatchSeries(prometheus::Registry* registry) {
  auto& batches = AddCounters(registry, "quiver_batches_total", "Batches that have been run.");
  auto& overtakes = AddCounters(registry, "quiver_batch_overtakes_total",
                                "Times that another batch ran between two steps of one.");
  auto& joined = AddCounters(registry, "quiver_deduplicated_items_total",
                             "Inputs computed together with an equal one that waited or ran.");
  auto& prefix_hits = AddCounters(
      registry, "quiver_prefix_hits_total",
      "Inputs whose first tokens were not computed, as their keys and values were kept.");
  auto& prefix_tokens = AddCounters(registry, "quiver_prefix_saved_tokens_total",
                                    "Tokens that were not computed for it.");
  auto& tokens =
      AddHistograms(registry, "quiver_batch_tokens", "Tokens of a batch that are computed.");
  auto& sequences = AddHistograms(registry, "quiver_batch_sequences", "Sequences of a batch.");
  auto& occupancy = AddHistograms(registry, "quiver_batch_occupancy_ratio",
                                  "Tokens of a batch, of those it might have had.");
  auto& duration =
      AddHistograms(registry, "quiver_batch_duration_seconds", "Time of a batch on the device.");
  auto& predicted = AddHistograms(registry, "quiver_batch_predicted_duration_seconds",
                                  "The same as predicted when the batch was formed.");
  auto& ratio = AddHistograms(registry, "quiver_batch_actual_to_predicted_ratio",
                              "Time of a batch on the device, of that predicted.");
  auto& gap = AddHistograms(registry, "quiver_device_gap_seconds",
                            "Time that the device stood still before a batch that waited for it.");
  for (const Lane lane : kLanes) {
    LaneSeries& series = SeriesOf(lane);
    const Labels labels = LaneLabel(lane);
    Labels ok = labels;
    ok.emplace("outcome", "ok");
    Labels failed = labels;
    failed.emplace("outcome", "failed");
    series.batches_ok = &batches.Add(ok);
    series.batches_failed = &batches.Add(failed);
    series.overtakes = &overtakes.Add(labels);
    series.joined = &joined.Add(labels);
    series.prefix_hits = &prefix_hits.Add(labels);
    series.prefix_tokens = &prefix_tokens.Add(labels);
    series.tokens = &tokens.Add(labels, PowersOfTwo(4, 17));
    series.sequences = &sequences.Add(labels, PowersOfTwo(0, 12));
    series.occupancy = &occupancy.Add(
        labels, Histogram::BucketBoundaries{0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1});
    series.duration = &duration.Add(labels, TimeBuckets());
    series.predicted = &predicted.Add(labels, TimeBuckets());
    series.actual_to_predicted = &ratio.Add(
        labels, Histogram::BucketBoundaries{0.25, 0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4});
    series.gap = &gap.Add(labels, Histogram::BucketBoundaries{1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4,
                                                              1e-3, 2e-3, 5e-3, 0.01, 0.1});
  }
  AddCounters(registry, "quiver_padding_tokens_total",
              "Tokens run that belong to no sequence: none, as batches are packed.")
      .Add({});
  busy_seconds_ = &AddCounters(registry, "quiver_device_busy_seconds_total",
                               "Time that batches have been on the device.")
                       .Add({});
  busy_ratio_ = &AddGauges(registry, "quiver_device_busy_ratio",
                           "Part of the last minute that batches were on the device.")
                     .Add({});
  load_ratio_ = &AddGauges(registry, "quiver_device_load_ratio",
                           "Part of the last minute that its batches would have taken as parts of "
                           "full ones: the rest is what the device could still take on.")
                     .Add({});
}

void SchedulerMetrics::AddDropSeries(prometheus::Registry* registry) {
  auto& drops = AddCounters(registry, "quiver_dropped_items_total",
                            "Inputs given up without a vector, by where they were and why.");
  for (const Lane lane : kLanes) {
    for (int place = 0; place < kNumDropPoints; ++place) {
      for (int code = 0; code < kNumDropCodes; ++code) {
        Labels labels = LaneLabel(lane);
        labels.emplace("place", kDropPlaces[place]);
        labels.emplace("code", code + 1 < kNumDropCodes ? absl::StatusCodeToString(kDropCodes[code])
                                                        : "OTHER");
        SeriesOf(lane).drops[place][code] = &drops.Add(labels);
      }
    }
  }
}

void SchedulerMetrics::AddQueueSeries(prometheus::Registry* registry) {
  auto& items = AddGauges(registry, "quiver_queue_items", "Inputs that wait.");
  auto& tokens = AddGauges(registry, "quiver_queue_tokens", "Tokens of inputs that wait.");
  auto& tenants = AddGauges(registry, "quiver_queue_tenants", "Tenants whose inputs wait.");
  auto& age = AddGauges(registry, "quiver_queue_oldest_age_seconds",
                        "How long the input that came first of those waiting has waited.");
  auto& wait = AddGauges(registry, "quiver_queue_predicted_wait_seconds",
                         "How long an input that came now would wait.");
  auto& running_items =
      AddGauges(registry, "quiver_running_items", "Inputs of batches on the device.");
  auto& running_tokens =
      AddGauges(registry, "quiver_running_tokens", "Tokens of batches on the device.");
  for (const Lane lane : kLanes) {
    LaneSeries& series = SeriesOf(lane);
    const Labels labels = LaneLabel(lane);
    series.queued_items = &items.Add(labels);
    series.queued_tokens = &tokens.Add(labels);
    series.queued_tenants = &tenants.Add(labels);
    series.oldest_age = &age.Add(labels);
    series.predicted_wait = &wait.Add(labels);
    series.running_items = &running_items.Add(labels);
    series.running_tokens = &running_tokens.Add(labels);
  }
}

void SchedulerMetrics::OnBatch(const BatchReport& report) {
  const absl::Time now = SteadyNow();
  busy_window_.Add(now, report.duration);
  load_window_.Add(now, report.share);
  {
    absl::MutexLock lock(&mutex_);
    busy_ += report.duration;
  }
  LaneSeries& series = SeriesOf(report.lane);
  (report.ok ? series.batches_ok : series.batches_failed)->Increment();
  series.overtakes->Increment(report.overtaken);
  // A pass that failed is tried again.
  if (report.ok) {
    series.prefix_hits->Increment(report.prefix_hits);
    series.prefix_tokens->Increment(static_cast<double>(report.prefix_tokens));
  }
  series.tokens->Observe(report.tokens);
  series.sequences->Observe(report.sequences);
  if (report.token_budget > 0) {
    series.occupancy->Observe(static_cast<double>(report.tokens) / report.token_budget);
  }
  series.duration->Observe(absl::ToDoubleSeconds(report.duration));
  if (report.gap.has_value()) series.gap->Observe(absl::ToDoubleSeconds(*report.gap));
  // Before the first pass there is no prediction, and a pass that failed took no time to compare.
  if (report.ok && report.predicted > absl::ZeroDuration()) {
    series.predicted->Observe(absl::ToDoubleSeconds(report.predicted));
    series.actual_to_predicted->Observe(absl::FDivDuration(report.duration, report.predicted));
  }
}

void SchedulerMetrics::OnDropped(Lane lane, DropPoint where, absl::StatusCode code) {
  const auto found = std::find(std::begin(kDropCodes), std::end(kDropCodes), code);
  SeriesOf(lane).drops[static_cast<size_t>(where)][found - std::begin(kDropCodes)]->Increment();
}

void SchedulerMetrics::Refresh(const QueueSnapshot& snapshot) {
  absl::Duration running;
  std::array<double, kNumLanes> running_items = {};
  std::array<double, kNumLanes> running_tokens = {};
  for (const QueueSnapshot::PassState& pass : snapshot.passes) {
    running += pass.device_time;
    running_items[static_cast<size_t>(pass.lane)] += pass.tasks;
    running_tokens[static_cast<size_t>(pass.lane)] += pass.tokens;
  }
  for (size_t i = 0; i < lanes_.size(); ++i) {
    const QueueSnapshot::LaneState& lane = snapshot.lanes[i];
    lanes_[i].queued_items->Set(static_cast<double>(lane.tasks));
    lanes_[i].queued_tokens->Set(static_cast<double>(lane.tokens));
    lanes_[i].queued_tenants->Set(lane.tenants);
    lanes_[i].oldest_age->Set(absl::ToDoubleSeconds(lane.oldest_age));
    lanes_[i].predicted_wait->Set(absl::ToDoubleSeconds(lane.predicted_wait));
    lanes_[i].running_items->Set(running_items[i]);
    lanes_[i].running_tokens->Set(running_tokens[i]);
  }

  absl::Duration busy = running;
  {
    absl::MutexLock lock(&mutex_);
    busy += busy_;
  }
  // A pass that ended since the snapshot is in both sums, one that ended in between in neither: a
  // counter must not go back all the same.
  busy_seconds_->Increment(std::max(0.0, absl::ToDoubleSeconds(busy) - busy_seconds_->Value()));
  const absl::Time now = SteadyNow();
  const auto of_window = [](absl::Duration spent) {
    return std::min(1.0, absl::FDivDuration(spent, SlidingQuantiles::kWindow));
  };
  busy_ratio_->Set(of_window(busy_window_.Sum(now) + running));
  load_ratio_->Set(of_window(load_window_.Sum(now)));
}

}  // namespace quiver
