#include "server/otlp_json.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace quiver {
namespace {

using nlohmann::json;

RequestReport Request() {
  RequestReport report;
  report.trace.trace_id = NewTraceId();
  report.trace.span_id = NewSpanId();
  report.trace.sampled = true;
  report.arrival = absl::FromUnixNanos(1'700'000'000'123'456'789);
  report.total = absl::Nanoseconds(1001);
  return report;
}

json Spans(const RequestReport& report) {
  std::vector<std::unique_ptr<const RequestReport>> requests;
  requests.push_back(std::make_unique<const RequestReport>(report));
  return json::parse(
      OtlpEncoder({}).Encode(requests))["resourceSpans"][0]["scopeSpans"][0]["spans"];
}

std::map<std::string, json> Attributes(const json& holder) {
  std::map<std::string, json> out;
  for (const json& attribute : holder["attributes"]) {
    out[attribute["key"]] = *attribute["value"].begin();
  }
  return out;
}

bool IsInError(absl::StatusCode code, int http_status) {
  RequestReport report = Request();
  report.code = code;
  report.http_status = http_status;
  if (http_status != 0) report.route = "/embed";
  return Spans(report)[0].contains("status");
}

TEST(OtlpJson, TimesAreTextsOfNanoseconds) {
  const json span = Spans(Request())[0];
  EXPECT_EQ(span["startTimeUnixNano"], "1700000000123456789");
  EXPECT_EQ(span["endTimeUnixNano"], "1700000000123457790");
}

TEST(OtlpJson, OnlyTheServersErrorsAreTheSpans) {
  EXPECT_TRUE(IsInError(absl::StatusCode::kInternal, 0));
  EXPECT_TRUE(IsInError(absl::StatusCode::kDeadlineExceeded, 0));
  EXPECT_TRUE(IsInError(absl::StatusCode::kUnavailable, 503));
  EXPECT_FALSE(IsInError(absl::StatusCode::kOk, 0));
  EXPECT_FALSE(IsInError(absl::StatusCode::kInvalidArgument, 0));
  EXPECT_FALSE(IsInError(absl::StatusCode::kResourceExhausted, 429));
}

TEST(OtlpJson, ClientsCannotBreakTheForm) {
  RequestReport report = Request();
  report.tenant = "a\"b\\\n\xff{";
  report.trace.parent_id = NewSpanId();
  report.trace.tracestate = "a=\"\\";
  report.peer = "\",:1";
  const json span = Spans(report)[0];
  EXPECT_EQ(Attributes(span)["quiver.tenant"], "a\"b\\\n\xef\xbf\xbd{");
  EXPECT_EQ(span["traceState"], "a=\"\\");
  EXPECT_EQ(Attributes(span)["client.address"], "\",");
}

TEST(OtlpJson, PeersOfBothDoorsAreTakenApart) {
  for (const auto& [peer, address] :
       {std::pair("ipv4:127.0.0.1:5", "127.0.0.1"), std::pair("ipv6:%5B::1%5D:5", "::1"),
        std::pair("127.0.0.1:5", "127.0.0.1"), std::pair("[::1]:5", "::1")}) {
    RequestReport report = Request();
    report.peer = peer;
    std::map<std::string, json> attributes = Attributes(Spans(report)[0]);
    EXPECT_EQ(attributes["client.address"], address) << peer;
    EXPECT_EQ(attributes["network.peer.port"], "5") << peer;
  }
  RequestReport report = Request();
  report.peer = "unix:/x";
  EXPECT_FALSE(Attributes(Spans(report)[0]).contains("client.address"));
}

TEST(OtlpJson, SpansAreAsManyAsCounted) {
  RequestReport report = Request();
  EXPECT_EQ(Spans(report).size(), OtlpEncoder::NumSpans(report));
  report.timeline.tokenize_began = report.timeline.tokenize_ended = report.arrival;
  for (int i = 0; i < 40; ++i) {
    report.timeline.Add({.vector = {},
                         .token_count = 3,
                         .queue_time = absl::Seconds(1),
                         .compute_time = absl::Seconds(1),
                         .answered = report.arrival + absl::Seconds(i / 2)});
  }
  EXPECT_EQ(report.timeline.num_batches, 20);
  const json spans = Spans(report);
  EXPECT_EQ(spans.size(), 2 + 2 * RequestTimeline::kMaxBatches);
  EXPECT_EQ(spans.size(), OtlpEncoder::NumSpans(report));
  EXPECT_EQ(Attributes(spans.back())["quiver.tokens"], "6");
}

TEST(OtlpJson, TheResourceIsEscapedToo) {
  const OtlpEncoder encoder({.resource = {{"a\"", "b\""}}, .server_version = "1"});
  const json message = json::parse(encoder.Encode({}));
  EXPECT_EQ(Attributes(message["resourceSpans"][0]["resource"])["a\""], "b\"");
}

}  // namespace
}  // namespace quiver
