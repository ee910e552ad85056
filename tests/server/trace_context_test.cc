#include "server/trace_context.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/request_tracer.h"

namespace quiver {
namespace {

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kSpan[] = "00f067aa0ba902b7";

TraceContext Parse(const std::string& parent, const std::string& state = "") {
  TraceHeaders headers;
  headers.AddParent(parent);
  if (!state.empty()) headers.AddState(state);
  return ContextUnder(headers);
}

std::string Parent(const std::string& flags) {
  return absl::StrCat("00-", kTrace, "-", kSpan, "-", flags);
}

TEST(TraceContext, TakesIdsAndTheSampledFlagOfItsParent) {
  const TraceContext context = Parse(Parent("01"));
  EXPECT_EQ(HexId(context.trace_id), kTrace);
  EXPECT_EQ(HexId(context.parent_id), kSpan);
  EXPECT_TRUE(context.sampled);
  EXPECT_FALSE(Parse(Parent("00")).sampled);
  // Other bits are other flags.
  EXPECT_TRUE(Parse(Parent("ff")).sampled);
  EXPECT_FALSE(Parse(Parent("fe")).sampled);
}

TEST(TraceContext, LaterVersionsMayGoOn) {
  const std::string rest = absl::StrCat("-", kTrace, "-", kSpan, "-01");
  EXPECT_TRUE(Parse("01" + rest).valid());
  EXPECT_TRUE(Parse("fe" + rest + "-more").valid());
  EXPECT_FALSE(Parse("fe" + rest + "more").valid());
  EXPECT_FALSE(Parse("00" + rest + "-more").valid());
  EXPECT_FALSE(Parse("ff" + rest).valid());
}

TEST(TraceContext, WhatBreaksTheFormIsNoParent) {
  const std::string zeros(32, '0');
  for (const std::string& bad :
       {std::string(), std::string("00"), Parent("0"), Parent("001"), Parent("0g"), Parent("0A"),
        absl::StrCat("00-", zeros, "-", kSpan, "-01"),
        absl::StrCat("00-", kTrace, "-0000000000000000-01"),
        absl::StrCat("00-4BF92F3577B34DA6A3CE929D0E0E4736-", kSpan, "-01"),
        absl::StrCat("00_", kTrace, "-", kSpan, "-01"), absl::StrCat("00-", kTrace, kSpan, "--01"),
        absl::StrCat("0-0", kTrace, "-", kSpan, "-01"), std::string(10'000, 'a')}) {
    EXPECT_FALSE(Parse(bad).valid()) << bad;
  }
}

TEST(TraceContext, TwoParentsAreNone) {
  TraceHeaders headers;
  headers.AddParent(Parent("01"));
  headers.AddParent(Parent("01"));
  EXPECT_FALSE(ContextUnder(headers).valid());
  EXPECT_FALSE(ContextUnder({}).valid());
}

TEST(TraceContext, PassesTheStateOnUnlessItIsBroken) {
  EXPECT_EQ(Parse(Parent("01"), "a=1, b@c=2,,d= x").tracestate, "a=1, b@c=2,,d= x");
  TraceHeaders headers;
  headers.AddParent(Parent("01"));
  headers.AddState("a=1");
  headers.AddState("b=2");
  EXPECT_EQ(ContextUnder(headers).tracestate, "a=1,b=2");

  std::string many = "k0=0";
  for (int i = 1; i < 33; ++i) absl::StrAppend(&many, ",k", i, "=0");
  for (const std::string& bad :
       {std::string("a"), std::string("=1"), std::string("A=1"), std::string("a=1,a=2"),
        std::string("a=1=2"), std::string("a=\x01"), std::string("a=\xc3\xa4"), many,
        "a=" + std::string(257, 'x')}) {
    const TraceContext context = Parse(Parent("01"), bad);
    EXPECT_TRUE(context.valid());
    EXPECT_EQ(context.tracestate, "") << bad;
  }
}

TEST(TraceContext, TheReplyNamesTheRequestsOwnSpan) {
  TraceContext context = Parse(Parent("01"));
  context.span_id = {1, 2, 3, 4, 5, 6, 7, 0xff};
  EXPECT_EQ(TraceResponse(context), absl::StrCat("00-", kTrace, "-01020304050607ff-01"));
}

class NoObserver : public RequestObserver {
 public:
  void OnRequestStart(Rpc) override {}
  void OnItems(Rpc, Lane, const ItemCounts&) override {}
  void OnRequestEnd(const RequestReport&) override {}
};

class NoSender : public SpanSender {
 public:
  Result Send(const std::string&, const Deadline&) override { return {}; }
};

class RequestTracerTest : public ::testing::Test {
 protected:
  // How many of 10,000 requests with these headers are sampled.
  int Sampled(double ratio, const TraceHeaders& headers) {
    RequestTracer tracer(ratio, &exporter_, &next_);
    int sampled = 0;
    for (int i = 0; i < 10'000; ++i) sampled += tracer.StartTrace(headers).sampled;
    return sampled;
  }

  NoObserver next_;
  Logger logger_{{}};
  SpanExporter exporter_{{}, OtlpEncoder({}), std::make_unique<NoSender>(), &logger_};
};

TEST_F(RequestTracerTest, TracesThatBeginHereAreSampledByTheRatio) {
  EXPECT_EQ(Sampled(0, {}), 0);
  EXPECT_EQ(Sampled(1, {}), 10'000);
  // Nine standard deviations.
  EXPECT_NEAR(Sampled(0.25, {}), 2500, 400);
}

TEST_F(RequestTracerTest, TheCallerDecidesOnItsOwnTraces) {
  TraceHeaders yes, no;
  yes.AddParent(Parent("01"));
  no.AddParent(Parent("00"));
  EXPECT_EQ(Sampled(0, yes), 10'000);
  EXPECT_EQ(Sampled(1, no), 0);
}

TEST_F(RequestTracerTest, EachRequestHasASpanOfItsOwn) {
  RequestTracer tracer(1, &exporter_, &next_);
  const TraceContext first = tracer.StartTrace({});
  const TraceContext second = tracer.StartTrace({});
  EXPECT_NE(first.trace_id, second.trace_id);
  EXPECT_NE(first.span_id, second.span_id);
  EXPECT_EQ(first.parent_id, SpanId());
}

TEST_F(RequestTracerTest, WithoutAnExporterThereAreIdsAlone) {
  RequestTracer tracer(1, nullptr, &next_);
  TraceHeaders headers;
  headers.AddParent(Parent("01"));
  const TraceContext context = tracer.StartTrace(headers);
  EXPECT_EQ(HexId(context.trace_id), kTrace);
  EXPECT_FALSE(context.sampled);
}

}  // namespace
}  // namespace quiver
