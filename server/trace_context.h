// Who a request is in a distributed trace: W3C Trace Context
// (https://www.w3.org/TR/trace-context/).
#ifndef QUIVER_SERVER_TRACE_CONTEXT_H_
#define QUIVER_SERVER_TRACE_CONTEXT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace quiver {

// Bytes in the order in which their hexadecimal digits are written. All zero is no id.
using TraceId = std::array<uint8_t, 16>;
using SpanId = std::array<uint8_t, 8>;

// Lower-case hexadecimal; empty for no id.
std::string HexId(const TraceId& id);
std::string HexId(const SpanId& id);

// At random, never all zero. Unpredictable to nobody who tries: no secrets.
TraceId NewTraceId();
SpanId NewSpanId();

// A request's own span.
struct TraceContext {
  TraceId trace_id = {};
  SpanId span_id = {};
  // The caller's span; none for the first of a trace.
  SpanId parent_id = {};
  // Whether the trace is to be recorded.
  bool sampled = false;
  // What tracing systems on the way have to say to each other, as it came.
  std::string tracestate;

  // Whether there is one: nobody traces or logs otherwise.
  bool valid() const { return trace_id != TraceId{}; }
};

// The two headers (gRPC metadata) of a request as they came.
struct TraceHeaders {
  static constexpr char kParent[] = "traceparent";
  static constexpr char kState[] = "tracestate";

  std::string traceparent;
  std::string tracestate;
  // More than one traceparent makes none.
  int parents = 0;

  // To be called for each of them, in order.
  void AddParent(absl::string_view value);
  void AddState(absl::string_view value);
};

// The request's context under its caller's, which decides whether it is sampled; invalid unless
// there is a caller, stated as the standard demands. A tracestate that breaks its rules is left
// out. The span has no id yet.
TraceContext ContextUnder(const TraceHeaders& headers);

// The header (trailing metadata) of a reply that names its request's span, from the W3C's draft of
// Trace Context Level 3: "00-TRACE-SPAN-FLAGS".
inline constexpr char kTraceResponse[] = "traceresponse";
std::string TraceResponse(const TraceContext& context);

}  // namespace quiver

#endif  // QUIVER_SERVER_TRACE_CONTEXT_H_
