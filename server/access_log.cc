#include "server/access_log.h"

#include "absl/status/status.h"
#include "server/metric_names.h"

namespace quiver {

void AccessLog::OnRequestEnd(const RequestReport& report) {
  next_.OnRequestEnd(report);
  logger_.Info("request", {{"rpc", RpcName(report.rpc)},
                           {"lane", LaneName(report.lane)},
                           {"code", absl::StatusCodeToString(report.code)},
                           {"peer", report.peer},
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
