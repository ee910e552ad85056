#include "server/span_exporter.h"

#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace quiver {
namespace {

using Kind = SpanSender::Result::Kind;
using ::testing::Ge;

constexpr absl::Duration kPatience = absl::Seconds(60);

// A request with four spans: itself, tokenize, queue and compute.
RequestReport Request() {
  RequestReport report;
  report.trace.trace_id = NewTraceId();
  report.trace.span_id = NewSpanId();
  report.trace.sampled = true;
  report.arrival = absl::FromUnixSeconds(1000);
  report.total = absl::Seconds(1);
  report.timeline.tokenize_began = report.timeline.tokenize_ended = absl::FromUnixSeconds(1000);
  report.timeline.batches.emplace_back();
  return report;
}

// What the collector behind a sender saw, and what it answers.
class Collector {
 public:
  // Answers with these first, in order, then with kSent. Without a gate none is held up.
  void Answer(std::deque<SpanSender::Result> results) {
    absl::MutexLock lock(&mutex_);
    results_ = std::move(results);
  }
  void HoldUp(bool held) {
    absl::MutexLock lock(&mutex_);
    held_ = held;
  }
  // Spans of each message.
  std::vector<size_t> Messages() const {
    absl::MutexLock lock(&mutex_);
    return messages_;
  }
  void AwaitMessages(size_t count) const {
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return messages_.size() >= count;
    };
    absl::MutexLock lock(&mutex_);
    ASSERT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience));
  }

  SpanSender::Result Take(const std::string& body, const SpanSender::Deadline& deadline) {
    const nlohmann::json json = nlohmann::json::parse(body);
    const size_t spans = json["resourceSpans"][0]["scopeSpans"][0]["spans"].size();
    absl::MutexLock lock(&mutex_);
    messages_.push_back(spans);
    const auto open = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !held_; };
    while (!mutex_.AwaitWithTimeout(absl::Condition(&open), absl::Milliseconds(5))) {
      if (absl::Now() >= deadline()) return {.kind = Kind::kTryAgain, .error = "late"};
    }
    if (results_.empty()) return {};
    SpanSender::Result result = std::move(results_.front());
    results_.pop_front();
    return result;
  }

 private:
  mutable absl::Mutex mutex_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<SpanSender::Result> results_ ABSL_GUARDED_BY(mutex_);
  std::vector<size_t> messages_ ABSL_GUARDED_BY(mutex_);
};

class CollectorSender : public SpanSender {
 public:
  explicit CollectorSender(Collector* collector) : collector_(*collector) {}
  Result Send(const std::string& body, const Deadline& deadline) override {
    return collector_.Take(body, deadline);
  }

 private:
  Collector& collector_;
};

class SpanExporterTest : public ::testing::Test {
 protected:
  std::unique_ptr<SpanExporter> Make(SpanExporter::Options options) {
    options.first_wait = absl::Milliseconds(1);
    options.max_wait = absl::Milliseconds(4);
    return std::make_unique<SpanExporter>(options, OtlpEncoder({}),
                                          std::make_unique<CollectorSender>(&collector_), &logger_);
  }
  std::unique_ptr<SpanExporter> Make() { return Make({.interval = absl::Milliseconds(1)}); }
  static absl::Time Later() { return absl::Now() + kPatience; }

  Logger logger_{{.level = LogLevel::kError}};
  Collector collector_;
};

TEST_F(SpanExporterTest, ThreadsSpansAllArrive) {
  auto exporter = Make();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) exporter->Add(Request());
    });
  }
  for (std::thread& thread : threads) thread.join();
  exporter->Stop(Later());
  EXPECT_EQ(exporter->stats().exported, 1600);
  EXPECT_EQ(exporter->stats().dropped, 0);
  size_t sum = 0;
  for (const size_t spans : collector_.Messages()) sum += spans;
  EXPECT_EQ(sum, 1600);
}

TEST_F(SpanExporterTest, SpansTravelTogether) {
  auto exporter = Make({.max_message_spans = 8, .interval = kPatience});
  for (int i = 0; i < 4; ++i) exporter->Add(Request());
  collector_.AwaitMessages(2);
  exporter->Stop(Later());
  EXPECT_THAT(collector_.Messages(), ::testing::ElementsAre(8, 8));
}

TEST_F(SpanExporterTest, ACollectorThatStandsStillHoldsNobodyUp) {
  collector_.HoldUp(true);
  auto exporter = Make({.max_queued_spans = 40,
                        .max_message_spans = 4,
                        .interval = kPatience,
                        .send_timeout = kPatience});
  exporter->Add(Request());
  collector_.AwaitMessages(1);
  for (int i = 0; i < 25; ++i) exporter->Add(Request());
  EXPECT_EQ(exporter->stats().dropped, 15 * 4);
  collector_.HoldUp(false);
  exporter->Stop(Later());
  EXPECT_EQ(exporter->stats().exported, 11 * 4);
  EXPECT_EQ(exporter->stats().failed, 0);
}

TEST_F(SpanExporterTest, WhatMayPassIsTriedAgain) {
  collector_.Answer({{.kind = Kind::kTryAgain, .error = "503"},
                     {.kind = Kind::kTryAgain, .retry_after = absl::Hours(1), .error = "429"}});
  auto exporter = Make();
  exporter->Add(Request());
  collector_.AwaitMessages(3);
  exporter->Stop(Later());
  EXPECT_EQ(exporter->stats().exported, 4);
  EXPECT_EQ(exporter->stats().failed, 0);
  EXPECT_THAT(collector_.Messages(), ::testing::ElementsAre(4, 4, 4));
}

TEST_F(SpanExporterTest, TriesHaveAnEnd) {
  collector_.Answer(std::deque<SpanSender::Result>(2, {.kind = Kind::kTryAgain, .error = "503"}));
  auto exporter = Make({.interval = absl::Milliseconds(1), .max_tries = 2});
  exporter->Add(Request());
  collector_.AwaitMessages(2);
  exporter->Add(Request());
  collector_.AwaitMessages(3);
  exporter->Stop(Later());
  EXPECT_EQ(exporter->stats().failed, 4);
  EXPECT_EQ(exporter->stats().exported, 4);
}

TEST_F(SpanExporterTest, WhatIsRefusedIsNotTriedAgain) {
  collector_.Answer({{.kind = Kind::kRefused, .error = "400"}, {.rejected_spans = 3}});
  auto exporter = Make();
  exporter->Add(Request());
  collector_.AwaitMessages(1);
  exporter->Add(Request());
  exporter->Stop(Later());
  EXPECT_EQ(exporter->stats().failed, 4 + 3);
  EXPECT_EQ(exporter->stats().exported, 1);
}

TEST_F(SpanExporterTest, StoppingSendsWhatWaitsAndTakesNoMore) {
  auto exporter = Make({.interval = kPatience});
  exporter->Add(Request());
  exporter->Stop(Later());
  EXPECT_EQ(exporter->stats().exported, 4);
  exporter->Add(Request());
  EXPECT_EQ(exporter->stats().dropped, 4);
}

TEST_F(SpanExporterTest, StoppingWaitsNoLongerThanItMay) {
  collector_.HoldUp(true);
  auto exporter = Make({.max_message_spans = 4, .interval = kPatience, .send_timeout = kPatience});
  for (int i = 0; i < 3; ++i) exporter->Add(Request());
  collector_.AwaitMessages(1);
  const absl::Time begin = absl::Now();
  exporter->Stop(begin + absl::Milliseconds(50));
  EXPECT_LT(absl::Now() - begin, kPatience / 2);
  EXPECT_EQ(exporter->stats().failed, 4);
  EXPECT_EQ(exporter->stats().dropped, 8);
}

}  // namespace
}  // namespace quiver
