#include "server/request_tracer.h"

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace quiver {
namespace {

// By the last 56 bits of the id, which are random, as OpenTelemetry's samplers do: who samples the
// same trace by a higher ratio takes it too.
bool IsSampled(const TraceId& id, double ratio) {
  uint64_t random = 0;
  for (size_t i = id.size() - 7; i < id.size(); ++i) random = random << 8 | id[i];
  return std::ldexp(static_cast<double>(random), -56) >= 1 - ratio;
}

}  // namespace

TraceContext RequestTracer::StartTrace(const TraceHeaders& headers) {
  TraceContext context = ContextUnder(headers);
  if (!context.valid()) {
    context.trace_id = NewTraceId();
    context.sampled = IsSampled(context.trace_id, sample_ratio_);
  }
  context.span_id = NewSpanId();
  context.sampled &= exporter_ != nullptr;
  return context;
}

void RequestTracer::OnRequestEnd(const RequestReport& report) {
  next_.OnRequestEnd(report);
  if (report.trace.sampled) exporter_->Add(report);
}

}  // namespace quiver
