#include "server/access_log.h"

#include "absl/status/status.h"
#include "server/metric_names.h"

namespace quiver {
namespace {

// Of what a client may make as long as it likes.
constexpr size_t kMaxLoggedBytes = 200;

}  // namespace

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

void AccessLog::OnRefusal(const HttpRefusal& refusal) {
  logger_.Info("refused", {{"method", refusal.method.substr(0, kMaxLoggedBytes)},
                           {"path", refusal.path.substr(0, kMaxLoggedBytes)},
                           {"http_status", refusal.status},
                           {"peer", refusal.peer}});
}

}  // namespace quiver
