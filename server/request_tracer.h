#ifndef QUIVER_SERVER_REQUEST_TRACER_H_
#define QUIVER_SERVER_REQUEST_TRACER_H_

#include "server/request_observer.h"
#include "server/span_exporter.h"

namespace quiver {

// Gives each request its place in a trace and hands those that are sampled to an exporter when they
// end. Thread-safe.
class RequestTracer : public RequestObserver {
 public:
  // A caller's trace is sampled as the caller says; of the others, which begin here, `sample_ratio`
  // (0 to 1). Without an exporter (null) nothing is, and ids are for the access log alone. All is
  // passed on to `next`; both must outlive this.
  RequestTracer(double sample_ratio, SpanExporter* exporter, RequestObserver* next)
      : sample_ratio_(sample_ratio), exporter_(exporter), next_(*next) {}

  TraceContext StartTrace(const TraceHeaders& headers) override;
  void OnRequestStart(Rpc rpc) override { next_.OnRequestStart(rpc); }
  void OnItems(Rpc rpc, Lane lane, const ItemCounts& items) override {
    next_.OnItems(rpc, lane, items);
  }
  void OnRequestEnd(const RequestReport& report) override;

 private:
  const double sample_ratio_;
  SpanExporter* const exporter_;
  RequestObserver& next_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_REQUEST_TRACER_H_
