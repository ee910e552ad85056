#include "server/request_metrics.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/metric_names.h"

namespace quiver {
namespace {

using prometheus::Labels;

bool HasLanes(Rpc rpc) { return rpc == Rpc::kEmbed || rpc == Rpc::kEmbedStream; }
bool HasItems(Rpc rpc) { return rpc != Rpc::kGetModelInfo; }

size_t Index(Rpc rpc) { return static_cast<size_t>(rpc); }

// Refusals are quick and would make a server that is overloaded look fast; a request that came too
// late counts.
bool CountsInDurations(absl::StatusCode code) {
  return code == absl::StatusCode::kOk || code == absl::StatusCode::kDeadlineExceeded;
}

}  // namespace

RequestMetrics::RequestMetrics(prometheus::Registry* registry) {
  auto& requests = AddCounters(registry, "quiver_requests_total",
                               "Requests and streams that have ended, by status code.");
  auto& in_flight = AddGauges(registry, "quiver_requests_in_flight",
                              "Requests and streams that have begun and not ended.");
  auto& items = AddCounters(registry, "quiver_items_total",
                            "Inputs answered, with a result or with an error of their own.");
  auto& truncated = AddCounters(registry, "quiver_truncated_items_total",
                                "Inputs shortened to the model's limit.");
  auto& tokens = AddCounters(registry, "quiver_tokens_total",
                             "Tokens of inputs that were answered with a result.");
  auto& duration = AddHistograms(registry, "quiver_request_duration_seconds",
                                 "From a request's arrival to its reply, of those that ended OK or "
                                 "DEADLINE_EXCEEDED.");
  auto& tokenize = AddHistograms(registry, "quiver_request_tokenize_seconds",
                                 "Time that a request's inputs were tokenized for.");
  auto& queue = AddHistograms(
      registry, "quiver_request_queue_seconds",
      "Longest wait of a request's inputs between being queued and their batch's start.");
  auto& compute = AddHistograms(
      registry, "quiver_request_compute_seconds",
      "Longest time of a request's inputs between their batch's start and their vector.");
  auto& quantile = AddGauges(
      registry, "quiver_request_duration_window_seconds",
      "Percentiles of quiver_request_duration_seconds over the last minute; NaN if it had none.");

  auto& failed_items = AddCounters(registry, "quiver_failed_items_total",
                                   "Inputs answered with an error of their own, by status code.");
  auto& unusable = AddCounters(
      registry, "quiver_unusable_vectors_total",
      "Inputs whose vector came out as NaN, infinity or zero, and was answered as an error.");
  for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
    LaneSeries& series = lanes_[static_cast<size_t>(lane)];
    const std::string lane_name(LaneName(lane));
    for (size_t code = 1; code < kNumCodes; ++code) {
      series.failed_items[code] = &failed_items.Add(
          {{"lane", lane_name},
           {"code", absl::StatusCodeToString(static_cast<absl::StatusCode>(code))}});
    }
    series.unusable_vectors = &unusable.Add({{"lane", lane_name}});
  }

  for (const Rpc rpc : {Rpc::kEmbed, Rpc::kEmbedStream, Rpc::kTokenize, Rpc::kGetModelInfo}) {
    const std::string rpc_name(RpcName(rpc));
    in_flight_[Index(rpc)] = &in_flight.Add({{"rpc", rpc_name}});
    for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
      if (lane == Lane::kBulk && !HasLanes(rpc)) continue;
      Series& series = SeriesOf(rpc, lane);
      const Labels labels = {{"rpc", rpc_name},
                             {"lane", HasLanes(rpc) ? std::string(LaneName(lane)) : "none"}};
      const auto with = [&labels](const char* name, std::string value) {
        Labels more = labels;
        more.emplace(name, std::move(value));
        return more;
      };
      for (size_t code = 0; code < series.requests.size(); ++code) {
        series.requests[code] = &requests.Add(
            with("code", absl::StatusCodeToString(static_cast<absl::StatusCode>(code))));
      }
      series.duration = &duration.Add(labels, TimeBuckets());
      for (size_t i = 0; i < kQuantiles.size(); ++i) {
        series.quantiles[i] = &quantile.Add(with("percentile", absl::StrCat(kQuantiles[i] * 100)));
      }
      if (!HasItems(rpc)) continue;
      series.succeeded = &items.Add(with("outcome", "succeeded"));
      series.failed = &items.Add(with("outcome", "failed"));
      series.truncated = &truncated.Add(labels);
      series.tokens = &tokens.Add(labels);
      series.tokenize = &tokenize.Add(labels, TimeBuckets());
      if (!HasLanes(rpc)) continue;
      series.queue = &queue.Add(labels, TimeBuckets());
      series.compute = &compute.Add(labels, TimeBuckets());
    }
  }
  Refresh();
}

RequestMetrics::Series& RequestMetrics::SeriesOf(Rpc rpc, Lane lane) {
  return series_[Index(rpc)][HasLanes(rpc) ? static_cast<size_t>(lane) : 0];
}

void RequestMetrics::OnRequestStart(Rpc rpc) { in_flight_[Index(rpc)]->Increment(); }

void RequestMetrics::OnItems(Rpc rpc, Lane lane, const ItemCounts& items) {
  const Series& series = SeriesOf(rpc, lane);
  if (series.succeeded == nullptr) return;
  series.succeeded->Increment(static_cast<double>(items.succeeded));
  series.failed->Increment(static_cast<double>(items.failed));
  series.truncated->Increment(static_cast<double>(items.truncated));
  series.tokens->Increment(static_cast<double>(items.tokens));
  if (!HasLanes(rpc)) return;
  const LaneSeries& of_lane = lanes_[static_cast<size_t>(lane)];
  for (size_t code = 1; code < kNumCodes; ++code) {
    of_lane.failed_items[code]->Increment(static_cast<double>(items.failed_by_code[code]));
  }
  of_lane.unusable_vectors->Increment(static_cast<double>(items.unusable_vectors));
}

void RequestMetrics::OnRequestEnd(const RequestReport& report) {
  in_flight_[Index(report.rpc)]->Decrement();
  Series& series = SeriesOf(report.rpc, report.lane);
  const auto code = static_cast<size_t>(report.code);
  series
      .requests[code < series.requests.size() ? code
                                              : static_cast<size_t>(absl::StatusCode::kUnknown)]
      ->Increment();
  if (CountsInDurations(report.code)) {
    series.duration->Observe(absl::ToDoubleSeconds(report.total));
    series.window.Add(SteadyNow(), report.total);
  }
  if (series.succeeded == nullptr) return;
  // A request none of whose inputs came that far has no such time, rather than one of zero.
  if (report.succeeded + report.failed > 0) {
    series.tokenize->Observe(absl::ToDoubleSeconds(report.tokenize));
  }
  if (series.queue == nullptr || report.succeeded == 0) return;
  series.queue->Observe(absl::ToDoubleSeconds(report.queue));
  series.compute->Observe(absl::ToDoubleSeconds(report.compute));
}

void RequestMetrics::Refresh() {
  const absl::Time now = SteadyNow();
  for (auto& lanes : series_) {
    for (Series& series : lanes) {
      if (series.duration == nullptr) continue;
      std::array<double, kQuantiles.size()> seconds;
      series.window.Quantiles(now, kQuantiles, absl::MakeSpan(seconds));
      for (size_t i = 0; i < seconds.size(); ++i) series.quantiles[i]->Set(seconds[i]);
    }
  }
}

}  // namespace quiver
