// What a load test is told and what it counts; without a server.
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/quiver/load_generator.h"
#include "tools/quiver/load_recorder.h"
#include "tools/quiver/serve_report.h"
#include "tools/quiver/workload.h"

namespace quiver {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

TEST(WorkloadTest, EveryKeyIsUnderstood) {
  const auto query = ParseWorkload(
      "name=q,rate=50.5,even,tokens=8-16,items=3,lane=bulk,tenant=t,deadline=200,target=10.5,"
      "shared=4,text");
  ASSERT_TRUE(query.ok()) << query.status();
  EXPECT_EQ(query->name, "q");
  EXPECT_EQ(query->rate, 50.5);
  EXPECT_TRUE(query->even);
  EXPECT_EQ(query->min_tokens, 8);
  EXPECT_EQ(query->max_tokens, 16);
  EXPECT_EQ(query->items, 3);
  EXPECT_EQ(query->lane, Lane::kBulk);
  EXPECT_EQ(query->tenant, "t");
  EXPECT_EQ(query->deadline, absl::Milliseconds(200));
  EXPECT_EQ(query->target, absl::Microseconds(10'500));
  EXPECT_EQ(query->shared_tokens, 4);
  EXPECT_TRUE(query->text);
  EXPECT_FALSE(query->stream);
}

TEST(WorkloadTest, AStreamIsBulkUnlessToldOtherwise) {
  EXPECT_EQ(ParseWorkload("stream,outstanding=4")->lane, Lane::kBulk);
  EXPECT_EQ(ParseWorkload("stream,outstanding=4,lane=interactive")->lane, Lane::kInteractive);
  EXPECT_EQ(ParseWorkload("outstanding=4")->lane, Lane::kInteractive);
}

TEST(WorkloadTest, WhatIsWrongIsNamed) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"rate=0", "rate: must be"},
      {"rate=nan", "rate: must be"},
      {"rate=x", "is 'x'"},
      {"rate=1,tokens=9-8", "tokens: must be"},
      {"rate=1,tokens=1-2-3", "tokens: must be"},
      {"rate=1,items=0", "items: must be"},
      {"rate=1,tokens=5-9,shared=6", "shared: must be at most 5"},
      {"rate=1,text=yes", "text: must be given without a value"},
      {"rate=1,lane=fast", "lane: must be interactive or bulk, is 'fast'"},
      {"rate=1,even=1", "even: must be given without a value"},
      {"rate=1,deadline=0", "deadline: must be"},
      {"rate=1,name", "name: must be"},
      {"rate=1,speed=2", "there is no key 'speed'"},
      {"rate=1,outstanding=1", "one of rate and outstanding"},
      {"tokens=5", "one of rate and outstanding"},
      {"rate=1,stream,items=2", "items: is for"},
      {"rate=1,stream,deadline=2", "deadline: is for"},
  };
  for (const auto& [text, message] : cases) {
    const auto workload = ParseWorkload(text);
    ASSERT_FALSE(workload.ok()) << text;
    EXPECT_THAT(workload.status().message(), HasSubstr(message)) << text;
  }
}

TEST(ArrivalsTest, EvenOnesAreAPeriodApart) {
  Arrivals arrivals(50, /*even=*/true, 1);
  for (int i = 1; i <= 100; ++i) EXPECT_NEAR(arrivals.Next(), i * 0.02, 1e-9);
}

TEST(ArrivalsTest, PoissonOnesHaveTheRateAndExponentialGaps) {
  Arrivals arrivals(50, /*even=*/false, 1);
  double last = 0;
  double squares = 0;
  constexpr int kCount = 100'000;
  for (int i = 0; i < kCount; ++i) {
    const double next = arrivals.Next();
    squares += (next - last) * (next - last);
    last = next;
  }
  EXPECT_NEAR(last / kCount, 0.02, 0.0004);
  // The standard deviation of an exponential gap is its mean.
  EXPECT_NEAR(squares / kCount, 2 * 0.02 * 0.02, 0.00004);
}

TEST(QuantileTest, IsTheNearestRank) {
  std::vector<float> values(100);
  std::iota(values.begin(), values.end(), 1.0f);
  EXPECT_EQ(Quantile(values, 0.50), 50);
  EXPECT_EQ(Quantile(values, 0.99), 99);
  EXPECT_EQ(Quantile(values, 1), 100);
  EXPECT_EQ(Quantile(values, 0), 1);
  EXPECT_EQ(Quantile({7}, 0.95), 7);
  EXPECT_EQ(Quantile({}, 0.5), 0);
}

class LoadRecorderTest : public ::testing::Test {
 protected:
  LoadRecorderTest() {
    workload_.target = absl::Milliseconds(20);
    window_ = {At(1000), At(2000)};
  }
  static LoadClock::time_point At(int ms) { return LoadClock::time_point(milliseconds(ms)); }

  Workload workload_;
  LoadWindow window_;
};

TEST_F(LoadRecorderTest, LatencyCountsFromWhenARequestWasDue) {
  LoadRecorder recorder(workload_, window_);
  recorder.Add({At(1100), At(1190), At(1200), 1, 1, 32});
  const LoadResult result = recorder.Take();
  EXPECT_THAT(result.latency_ms, ::testing::ElementsAre(100));
  EXPECT_THAT(result.lateness_ms, ::testing::ElementsAre(90));
  EXPECT_EQ(result.good_items, 0);
}

TEST_F(LoadRecorderTest, OnlyTheWindowCounts) {
  LoadRecorder recorder(workload_, window_);
  // Answered in it, due before.
  recorder.Add({At(990), At(990), At(1005), 1, 1, 32});
  // Due in it, answered after.
  recorder.Add({At(1995), At(1995), At(2005), 1, 1, 32});
  recorder.Add({At(2000), At(2000), At(2005), 1, 1, 32});
  const LoadResult result = recorder.Take();
  EXPECT_EQ(result.requests, 1);
  EXPECT_EQ(result.items, 1);
  EXPECT_EQ(result.tokens, 32);
  EXPECT_EQ(result.good_items, 1);
  EXPECT_THAT(result.latency_ms, ::testing::ElementsAre(10));
}

TEST_F(LoadRecorderTest, RefusalsAreCountedByCodeAndTimedByThemselves) {
  LoadRecorder recorder(workload_, window_);
  recorder.Add(
      {At(1100), At(1100), At(1101), 2, 0, 0, {{absl::StatusCode::kResourceExhausted, 2}}});
  // In part.
  recorder.Add(
      {At(1100), At(1100), At(1110), 2, 1, 32, {{absl::StatusCode::kDeadlineExceeded, 1}}});
  const LoadResult result = recorder.Take();
  EXPECT_EQ(result.failures.at(absl::StatusCode::kResourceExhausted), 2);
  EXPECT_EQ(result.failures.at(absl::StatusCode::kDeadlineExceeded), 1);
  EXPECT_THAT(result.refusal_ms, ::testing::ElementsAre(1));
  EXPECT_TRUE(result.latency_ms.empty());
  EXPECT_EQ(result.items, 1);
}

TEST_F(LoadRecorderTest, TheChartHasAPointForEachRun) {
  ServeReport report;
  for (const int ms : {5, 50}) {
    workload_.rate = ms;
    LoadRecorder recorder(workload_, window_);
    recorder.Add({At(1100), At(1100), At(1100 + ms), 1, 1, 32});
    report.runs.push_back({recorder.Take()});
  }
  const std::string svg = LatencyChart(report);
  size_t circles = 0;
  for (size_t at = 0; (at = svg.find("<circle", at)) != std::string::npos; ++at) ++circles;
  EXPECT_EQ(circles, 2 * 3u);
  const nlohmann::ordered_json json = ServeJson(report);
  EXPECT_EQ(json["runs"].size(), 2u);
  EXPECT_EQ(json["runs"][1]["workloads"][0]["latency_ms"]["p95"], 50);
}

TEST(InputMakerTest, InputsHaveTheLengthsAskedForAndIdsOfTheVocabulary) {
  Workload workload;
  workload.min_tokens = 3;
  workload.max_tokens = 5;
  InputMaker maker(workload, 100, 1, nullptr);
  std::vector<int> lengths(6);
  for (int i = 0; i < 300; ++i) {
    v1::Input input;
    maker.Make(&input);
    ASSERT_LT(input.token_ids().ids_size(), 6);
    ++lengths[static_cast<size_t>(input.token_ids().ids_size())];
    for (const uint32_t id : input.token_ids().ids()) ASSERT_LT(id, 100u);
  }
  EXPECT_EQ(lengths[0] + lengths[1] + lengths[2], 0);
  for (const int length : {3, 4, 5}) EXPECT_GT(lengths[static_cast<size_t>(length)], 50);
}

TEST(InputMakerTest, InputsBeginWithWhatTheyShareWhateverTheSeed) {
  Workload workload;
  workload.min_tokens = workload.max_tokens = 42;
  workload.shared_tokens = 30;
  v1::Input one, two;
  InputMaker(workload, 10'000, 1, nullptr).Make(&one);
  InputMaker(workload, 10'000, 2, nullptr).Make(&two);
  ASSERT_EQ(one.token_ids().ids_size(), 42);
  int alike = 0;
  while (one.token_ids().ids(alike) == two.token_ids().ids(alike)) ++alike;
  EXPECT_EQ(alike, 30);
}

TEST(InputMakerTest, TextsAreWordsOrLinesOfTheFile) {
  Workload workload;
  workload.text = true;
  workload.min_tokens = workload.max_tokens = 12;
  v1::Input input;
  InputMaker(workload, 1, 1, nullptr).Make(&input);
  EXPECT_EQ(std::count(input.text().begin(), input.text().end(), ' '), 11);
  const auto lines = std::make_shared<const std::vector<std::string>>(
      std::vector<std::string>{"one line", "another"});
  InputMaker(workload, 1, 1, lines).Make(&input);
  EXPECT_TRUE(input.text() == "one line" || input.text() == "another");
}

}  // namespace
}  // namespace quiver
