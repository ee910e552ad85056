#include "server/otlp_json.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "server/json_string.h"
#include "server/metric_names.h"

namespace quiver {
namespace {

// Numbers of the protocol: Span.SpanKind, Status.StatusCode, SpanFlags.
enum SpanKind { kInternal = 1, kServer = 2 };
constexpr int kStatusError = 2;
constexpr int kSampledFlag = 0x001;
constexpr int kParentIsKnownFlag = 0x100;
constexpr int kParentIsRemoteFlag = 0x200;

// A little more than four spans take.
constexpr size_t kUsualRequestBytes = 3072;

bool NeedsNoEscape(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isprint(static_cast<unsigned char>(c)) && c != '"' && c != '\\';
  });
}

// Builds {"key":...,"value":...} after {...}. Keys are ours and need no escaping.
class AttributeList {
 public:
  explicit AttributeList(std::string* out) : out_(*out) { out_ += R"("attributes":[)"; }
  ~AttributeList() { out_ += ']'; }
  AttributeList(const AttributeList&) = delete;
  AttributeList& operator=(const AttributeList&) = delete;

  // `value` is known to need no escaping.
  void AddPlain(absl::string_view key, absl::string_view value) {
    Add(key, R"("stringValue":")", value, "\"");
  }
  void AddText(absl::string_view key, absl::string_view value) {
    if (NeedsNoEscape(value)) return AddPlain(key, value);
    Add(key, R"("stringValue":)", JsonString(value), "");
  }
  void AddInt(absl::string_view key, int64_t value) {
    Add(key, R"("intValue":")", absl::AlphaNum(value).Piece(), "\"");
  }
  // Finite.
  void AddDouble(absl::string_view key, double value) {
    std::array<char, 32> text;
    const char* end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
    Add(key, R"("doubleValue":)", {text.data(), static_cast<size_t>(end - text.data())}, "");
  }
  void AddSeconds(absl::string_view key, absl::Duration value) {
    AddDouble(key, absl::ToDoubleSeconds(value));
  }

 private:
  void Add(absl::string_view key, absl::string_view before, absl::string_view value,
           absl::string_view after) {
    absl::StrAppend(&out_, first_ ? R"({"key":")" : R"(,{"key":")", key, R"(","value":{)", before,
                    value);
    absl::StrAppend(&out_, after, "}}");
    first_ = false;
  }

  std::string& out_;
  bool first_ = true;
};

// A span up to its attributes.
struct SpanHead {
  SpanId id = {};
  SpanId parent = {};
  absl::string_view name = {};
  SpanKind kind = kInternal;
  absl::Time began = {};
  absl::Time ended = {};
  int flags = kSampledFlag | kParentIsKnownFlag;
};

void BeginSpan(const TraceContext& trace, const SpanHead& span, std::string* out) {
  absl::StrAppend(out, R"({"traceId":")", HexId(trace.trace_id), R"(","spanId":")", HexId(span.id),
                  R"(","parentSpanId":")", HexId(span.parent), R"(","flags":)");
  absl::StrAppend(out, span.flags, R"(,"name":")", span.name, R"(","kind":)",
                  static_cast<int>(span.kind), R"(,"startTimeUnixNano":")");
  absl::StrAppend(out, absl::ToUnixNanos(span.began), R"(","endTimeUnixNano":")",
                  absl::ToUnixNanos(span.ended), "\",");
}

bool HasLane(Rpc rpc) { return rpc == Rpc::kEmbed || rpc == Rpc::kEmbedStream; }

bool HasTokenize(const RequestReport& report) {
  return report.timeline.tokenize_began > absl::UnixEpoch();
}

// What OpenTelemetry counts as the server's error rather than the client's.
bool IsServerError(const RequestReport& report) {
  if (!report.route.empty()) return report.http_status >= 500;
  switch (report.code) {
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kUnimplemented:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDataLoss:
      return true;
    default:
      return false;
  }
}

// From "ipv4:127.0.0.1:5", "ipv6:%5B::1%5D:5" (gRPC) or "127.0.0.1:5", "[::1]:5" (HTTP).
void AddPeer(absl::string_view peer, AttributeList* attributes) {
  if (!absl::ConsumePrefix(&peer, "ipv4:")) absl::ConsumePrefix(&peer, "ipv6:");
  const std::string text = absl::StrReplaceAll(peer, {{"%5B", "["}, {"%5D", "]"}});
  const size_t colon = text.rfind(':');
  int port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(text.substr(colon + 1), &port)) return;
  absl::string_view address = absl::string_view(text).substr(0, colon);
  if (absl::ConsumePrefix(&address, "[")) absl::ConsumeSuffix(&address, "]");
  attributes->AddText("client.address", address);
  attributes->AddText("network.peer.address", address);
  attributes->AddInt("network.peer.port", port);
}

void AddDoor(const RequestReport& report, bool tls, AttributeList* attributes) {
  const std::string code = absl::StatusCodeToString(report.code);
  if (report.route.empty()) {
    attributes->AddPlain("rpc.system.name", "grpc");
    attributes->AddPlain("rpc.method", RouteName(report));
    attributes->AddPlain("rpc.response.status_code", code);
  } else {
    attributes->AddPlain("http.request.method", "POST");
    attributes->AddPlain("http.route", report.route);
    attributes->AddPlain("url.path", report.route);
    attributes->AddPlain("url.scheme", tls ? "https" : "http");
    attributes->AddInt("http.response.status_code", report.http_status);
  }
  if (report.code != absl::StatusCode::kOk) {
    attributes->AddPlain("error.type",
                         report.route.empty() ? code : absl::StrCat(report.http_status));
  }
  AddPeer(report.peer, attributes);
}

void AddWork(const RequestReport& report, AttributeList* attributes) {
  if (HasLane(report.rpc)) {
    attributes->AddPlain("gen_ai.operation.name", "embeddings");
    attributes->AddPlain("gen_ai.provider.name", "quiver");
    attributes->AddInt("gen_ai.usage.input_tokens", report.tokens);
    if (!report.model.empty()) attributes->AddText("gen_ai.response.model", report.model);
    attributes->AddPlain("quiver.lane", LaneName(report.lane));
  }
  if (!report.tenant.empty()) attributes->AddText("quiver.tenant", report.tenant);
  attributes->AddInt("quiver.succeeded_items", report.succeeded);
  attributes->AddInt("quiver.failed_items", report.failed);
  attributes->AddInt("quiver.truncated_items", report.truncated);
  attributes->AddInt("quiver.batches", report.timeline.num_batches);
  attributes->AddSeconds("quiver.tokenize_seconds", report.tokenize);
  attributes->AddSeconds("quiver.queue_seconds", report.queue);
  attributes->AddSeconds("quiver.compute_seconds", report.compute);
}

void AppendTokenize(const RequestReport& report, std::string* out) {
  BeginSpan(report.trace,
            {.id = NewSpanId(),
             .parent = report.trace.span_id,
             .name = "tokenize",
             .began = report.timeline.tokenize_began,
             .ended = report.timeline.tokenize_ended},
            out);
  {
    AttributeList attributes(out);
    attributes.AddSeconds("quiver.tokenize_seconds", report.tokenize);
    attributes.AddInt("quiver.truncated_items", report.truncated);
  }
  *out += '}';
}

void AppendBatch(const RequestReport& report, const RequestTimeline::Batch& batch,
                 std::string* out) {
  BeginSpan(report.trace,
            {.id = NewSpanId(),
             .parent = report.trace.span_id,
             .name = "queue",
             .began = batch.began - batch.queue,
             .ended = batch.began},
            out);
  {
    AttributeList attributes(out);
    attributes.AddPlain("quiver.lane", LaneName(report.lane));
  }
  *out += "},";
  BeginSpan(report.trace,
            {.id = NewSpanId(),
             .parent = report.trace.span_id,
             .name = "compute",
             .began = batch.began,
             .ended = batch.ended},
            out);
  {
    AttributeList attributes(out);
    attributes.AddPlain("quiver.lane", LaneName(report.lane));
    attributes.AddInt("quiver.items", batch.items);
    attributes.AddInt("quiver.tokens", batch.tokens);
    attributes.AddInt("quiver.batch.sequences", batch.shape.sequences);
    attributes.AddInt("quiver.batch.tokens", batch.shape.tokens);
    if (batch.shape.token_budget > 0) {
      attributes.AddDouble("quiver.batch.occupancy",
                           static_cast<double>(batch.shape.tokens) / batch.shape.token_budget);
    }
  }
  *out += '}';
}

}  // namespace

OtlpEncoder::OtlpEncoder(const Options& options) : tls_(options.tls) {
  head_ = R"({"resourceSpans":[{"resource":{)";
  {
    AttributeList attributes(&head_);
    for (const auto& [key, value] : options.resource) {
      const std::string quoted = JsonString(key);
      attributes.AddText(absl::string_view(quoted).substr(1, quoted.size() - 2), value);
    }
  }
  absl::StrAppend(&head_, R"(},"scopeSpans":[{"scope":{"name":"quiver","version":)",
                  JsonString(options.server_version), R"(},"spans":[)");
}

size_t OtlpEncoder::NumSpans(const RequestReport& report) {
  return 1 + (HasTokenize(report) ? 1 : 0) + 2 * report.timeline.batches.size();
}

std::string OtlpEncoder::Encode(
    absl::Span<const std::unique_ptr<const RequestReport>> requests) const {
  std::string out;
  out.reserve(head_.size() + requests.size() * kUsualRequestBytes);
  out += head_;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (i > 0) out += ',';
    AppendRequest(*requests[i], &out);
  }
  out += "]}]}]}";
  return out;
}

void OtlpEncoder::AppendRequest(const RequestReport& report, std::string* out) const {
  const TraceContext& trace = report.trace;
  const bool has_parent = trace.parent_id != SpanId{};
  const std::string route = RouteName(report);
  BeginSpan(trace,
            {.id = trace.span_id,
             .parent = trace.parent_id,
             .name = report.route.empty() ? route : absl::StrCat("POST ", route),
             .kind = kServer,
             .began = report.arrival,
             .ended = report.arrival + report.total,
             .flags = kSampledFlag | kParentIsKnownFlag | (has_parent ? kParentIsRemoteFlag : 0)},
            out);
  if (!trace.tracestate.empty()) {
    absl::StrAppend(out, R"("traceState":)", JsonString(trace.tracestate), ",");
  }
  if (IsServerError(report)) absl::StrAppend(out, R"("status":{"code":)", kStatusError, "},");
  {
    AttributeList attributes(out);
    AddDoor(report, tls_, &attributes);
    AddWork(report, &attributes);
  }
  *out += '}';
  if (HasTokenize(report)) {
    *out += ',';
    AppendTokenize(report, out);
  }
  for (const RequestTimeline::Batch& batch : report.timeline.batches) {
    *out += ',';
    AppendBatch(report, batch, out);
  }
}

}  // namespace quiver
