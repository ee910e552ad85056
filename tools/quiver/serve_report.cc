#include "tools/quiver/serve_report.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace quiver {
namespace {

using nlohmann::ordered_json;

std::string Count(const LoadResult& result) {
  const Workload& workload = result.workload;
  return workload.open() ? absl::StrFormat("%.6g/s", workload.rate)
                         : absl::StrCat(workload.outstanding, " out");
}

std::string Tokens(const Workload& workload) {
  return workload.min_tokens == workload.max_tokens
             ? absl::StrCat(workload.min_tokens)
             : absl::StrCat(workload.min_tokens, "-", workload.max_tokens);
}

ordered_json Quantiles(const std::vector<float>& sorted) {
  return {{"count", sorted.size()},
          {"p50", Quantile(sorted, 0.50)},
          {"p95", Quantile(sorted, 0.95)},
          {"p99", Quantile(sorted, 0.99)},
          {"max", Quantile(sorted, 1)}};
}

// A number, or null for what has no bound.
ordered_json Bound(absl::Duration duration) {
  if (duration == absl::InfiniteDuration()) return nullptr;
  return absl::ToDoubleMilliseconds(duration);
}

ordered_json ResultJson(const LoadResult& result) {
  const Workload& workload = result.workload;
  ordered_json failures = ordered_json::object();
  for (const auto& [code, count] : result.failures) {
    failures[absl::StatusCodeToString(code)] = count;
  }
  return {{"name", workload.name},
          {"lane", workload.lane == Lane::kBulk ? "bulk" : "interactive"},
          {"stream", workload.stream},
          {"rate", workload.rate},
          {"arrivals", !workload.open() ? "outstanding"
                       : workload.even  ? "even"
                                        : "poisson"},
          {"outstanding", workload.outstanding},
          {"items_per_request", workload.items},
          {"min_tokens", workload.min_tokens},
          {"max_tokens", workload.max_tokens},
          {"tenant", workload.tenant},
          {"deadline_ms", Bound(workload.deadline)},
          {"target_ms", Bound(workload.target)},
          {"seconds", result.seconds},
          {"requests", result.requests},
          {"items_per_s", static_cast<double>(result.items) / result.seconds},
          {"tokens_per_s", static_cast<double>(result.tokens) / result.seconds},
          {"good_items_per_s", static_cast<double>(result.good_items) / result.seconds},
          {"latency_ms", Quantiles(result.latency_ms)},
          {"refusal_ms", Quantiles(result.refusal_ms)},
          {"lateness_ms", Quantiles(result.lateness_ms)},
          {"failed_items", failures}};
}

}  // namespace

std::string ServeTable(const ServeReport& report) {
  std::string table = absl::StrFormat("%s at %s, %s\n\n", report.model.model(), report.server,
                                      report.model.device());
  absl::StrAppendFormat(&table, "%-12s %-11s %11s %9s %9s %9s %9s %9s %9s %9s %9s  %s\n",
                        "workload", "lane", "requests", "tokens", "items/s", "good/s", "tokens/s",
                        "P50 ms", "P95 ms", "P99 ms", "late P99", "failed items");
  for (const std::vector<LoadResult>& run : report.runs) {
    for (const LoadResult& result : run) {
      std::string failed;
      for (const auto& [code, count] : result.failures) {
        absl::StrAppend(&failed, failed.empty() ? "" : ", ", count, " ",
                        absl::StatusCodeToString(code));
      }
      if (!result.refusal_ms.empty()) {
        absl::StrAppendFormat(&failed, " (P99 %.2f ms)", Quantile(result.refusal_ms, 0.99));
      }
      absl::StrAppendFormat(
          &table, "%-12s %-11s %11s %9s %9.1f %9.1f %9.0f %9.2f %9.2f %9.2f %9.2f  %s\n",
          result.workload.name, result.workload.lane == Lane::kBulk ? "bulk" : "interactive",
          Count(result), Tokens(result.workload),
          static_cast<double>(result.items) / result.seconds,
          static_cast<double>(result.good_items) / result.seconds,
          static_cast<double>(result.tokens) / result.seconds, Quantile(result.latency_ms, 0.50),
          Quantile(result.latency_ms, 0.95), Quantile(result.latency_ms, 0.99),
          Quantile(result.lateness_ms, 0.99), failed.empty() ? "0" : failed);
    }
  }
  return table;
}

ordered_json ServeJson(const ServeReport& report) {
  ordered_json runs = ordered_json::array();
  for (const std::vector<LoadResult>& run : report.runs) {
    ordered_json workloads = ordered_json::array();
    for (const LoadResult& result : run) workloads.push_back(ResultJson(result));
    runs.push_back({{"workloads", workloads}});
  }
  return {{"engine", "quiver"},
          {"date", absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone())},
          {"server", report.server},
          {"server_version", report.model.server_version()},
          {"model", report.model.model()},
          {"device", report.model.device()},
          {"max_batch_tokens", report.model.limits().max_batch_tokens()},
          {"runs", runs}};
}

}  // namespace quiver
