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
  // `observer` may be null and must outlive this.
  ObservedRequest(RequestObserver* observer, Rpc rpc, std::string peer) : observer_(observer) {
    report_.rpc = rpc;
    report_.peer = std::move(peer);
    if (observer_ != nullptr) observer_->OnRequestStart(rpc);
  }
  ~ObservedRequest() { End(absl::StatusCode::kAborted); }
  ObservedRequest(const ObservedRequest&) = delete;
  ObservedRequest& operator=(const ObservedRequest&) = delete;

  absl::Time arrival() const { return arrival_; }

  // What is known of the request so far; rpc and peer stay as they are. Items only grow in number
  // from one call to the next.
  void SetReport(RequestReport report) {
    report.rpc = report_.rpc;
    report.peer = std::move(report_.peer);
    if (observer_ != nullptr) observer_->OnItems(report.rpc, report.lane, report.Since(report_));
    report_ = std::move(report);
  }

  // Only the first call counts.
  void End(absl::StatusCode code) {
    if (ended_) return;
    ended_ = true;
    report_.code = code;
    report_.total = absl::Now() - arrival_;
    if (observer_ != nullptr) observer_->OnRequestEnd(report_);
  }

 private:
  RequestObserver* const observer_;
  const absl::Time arrival_ = absl::Now();
  RequestReport report_;
  bool ended_ = false;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_OBSERVED_REQUEST_H_
