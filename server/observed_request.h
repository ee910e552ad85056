#ifndef QUIVER_SERVER_OBSERVED_REQUEST_H_
#define QUIVER_SERVER_OBSERVED_REQUEST_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/request_observer.h"

namespace quiver {

// One request as it is told to a RequestObserver: its start when this is made, its end once. For
// one thread at a time.
class ObservedRequest {
 public:
  // `observer` may be null and must outlive this. `origin` lacks arrival and trace.
  ObservedRequest(RequestObserver* observer, RequestOrigin origin, const TraceHeaders& headers)
      : observer_(observer) {
    static_cast<RequestOrigin&>(report_) = std::move(origin);
    report_.arrival = absl::Now();
    if (observer_ == nullptr) return;
    report_.trace = observer_->StartTrace(headers);
    observer_->OnRequestStart(report_.rpc);
  }
  ~ObservedRequest() { End(absl::StatusCode::kAborted); }
  ObservedRequest(const ObservedRequest&) = delete;
  ObservedRequest& operator=(const ObservedRequest&) = delete;

  absl::Time arrival() const { return report_.arrival; }
  const TraceContext& trace() const { return report_.trace; }

  void SetTenant(std::string tenant) { report_.tenant = std::move(tenant); }

  // What is known of the request so far; its origin stays as it is. Items only grow in number from
  // one call to the next.
  void SetReport(RequestReport report) {
    if (observer_ != nullptr) observer_->OnItems(report_.rpc, report.lane, report.Since(report_));
    static_cast<RequestOrigin&>(report) = static_cast<RequestOrigin&&>(report_);
    report_ = std::move(report);
  }

  // Only the first call counts. `http_status` as in the report.
  void End(absl::StatusCode code, int http_status = 0) {
    if (ended_) return;
    ended_ = true;
    report_.code = code;
    report_.http_status = http_status;
    report_.total = absl::Now() - report_.arrival;
    if (observer_ != nullptr) observer_->OnRequestEnd(report_);
  }

 private:
  RequestObserver* const observer_;
  RequestReport report_;
  bool ended_ = false;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_OBSERVED_REQUEST_H_
