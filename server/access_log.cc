#include "server/access_log.h"

#include "absl/status/status.h"
#include "server/metric_names.h"

namespace quiver {

void AccessLog::OnRequestEnd(const RequestReport& report) {
  next_.OnRequestEnd(report);
  logger_.Info("request", {{"rpc", RpcName(report.rpc)},
                           {"route", RouteName(report)},
                           {"lane", LaneName(report.lane)},
                           {"code", absl::StatusCodeToString(report.code)},
                           {"http_status", report.http_status},
                           {"peer", report.peer},
                           {"tenant", report.tenant},
                           {"trace_id", HexId(report.trace.trace_id)},
                           {"span_id", HexId(report.trace.span_id)},
                           {"sampled", report.trace.sampled},
                           {"succeeded", report.succeeded},
                           {"failed", report.failed},
                           {"truncated", report.truncated},
                           {"tokens", report.tokens},
                           {"total_seconds", report.total},
                           {"tokenize_seconds", report.tokenize},
                           {"queue_seconds", report.queue},
                           {"compute_seconds", report.compute}});
}

}  // namespace quiver
