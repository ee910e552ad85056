#ifndef QUIVER_SERVER_ACCESS_LOG_H_
#define QUIVER_SERVER_ACCESS_LOG_H_

#include "server/http_types.h"
#include "server/log.h"
#include "server/request_observer.h"

namespace quiver {

// One line for each request when it ends: what it was, what became of it, how long it took; and for
// each that was refused at the door. Thread-safe.
class AccessLog : public RequestObserver {
 public:
  // Everything is passed on to `next`. Both must outlive this.
  AccessLog(Logger* logger, RequestObserver* next) : logger_(*logger), next_(*next) {}

  TraceContext StartTrace(const TraceHeaders& headers) override {
    return next_.StartTrace(headers);
  }
  void OnRequestStart(Rpc rpc) override { next_.OnRequestStart(rpc); }
  void OnItems(Rpc rpc, Lane lane, const ItemCounts& items) override {
    next_.OnItems(rpc, lane, items);
  }
  void OnRequestEnd(const RequestReport& report) override;
  // What never became a request.
  void OnRefusal(const HttpRefusal& refusal);

 private:
  Logger& logger_;
  RequestObserver& next_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_ACCESS_LOG_H_
