#ifndef QUIVER_SERVER_REQUESTS_IN_FLIGHT_H_
#define QUIVER_SERVER_REQUESTS_IN_FLIGHT_H_

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/request_observer.h"

namespace quiver {

// Counts the unary requests that have begun and not ended, so that draining can wait for them
// before it closes the engine: an input of theirs may still be on its way to the queue. Streams are
// left out, as they end when the engine does. Thread-safe.
class RequestsInFlight : public RequestObserver {
 public:
  // Everything is passed on to `next`, which must outlive this.
  explicit RequestsInFlight(RequestObserver* next) : next_(*next) {}

  TraceContext StartTrace(const TraceHeaders& headers) override {
    return next_.StartTrace(headers);
  }
  void OnRequestStart(Rpc rpc) override {
    Add(rpc, 1);
    next_.OnRequestStart(rpc);
  }
  void OnItems(Rpc rpc, Lane lane, const ItemCounts& items) override {
    next_.OnItems(rpc, lane, items);
  }
  void OnRequestEnd(const RequestReport& report) override {
    next_.OnRequestEnd(report);
    Add(report.rpc, -1);
  }

  // Until there is none or `deadline` passes; whether there is none.
  bool AwaitNone(absl::Time deadline) {
    absl::MutexLock lock(&mutex_);
    const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return count_ == 0; };
    return mutex_.AwaitWithDeadline(absl::Condition(&none), deadline);
  }

 private:
  void Add(Rpc rpc, int64_t change) {
    if (rpc == Rpc::kEmbedStream) return;
    absl::MutexLock lock(&mutex_);
    count_ += change;
  }

  RequestObserver& next_;
  absl::Mutex mutex_;
  int64_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_REQUESTS_IN_FLIGHT_H_
