#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/schedule/rig.h"

namespace quiver {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

StatusCode CodeOf(const Sent& sent) { return sent.submitted.code(); }

TEST(AdmissionTest, ALaneTakesTokensUpToItsBound) {
  Rig rig({}, {.max_queued_tokens = 1000});
  for (Sent* task : rig.SendMany(10, {.length = 100})) EXPECT_TRUE(task->submitted.ok());
  const Sent& refused = rig.Send({.length = 100});
  EXPECT_EQ(CodeOf(refused), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.submitted.message()), HasSubstr("10 tasks of 1000 tokens"));
  EXPECT_TRUE(rig.Send({.length = 100, .lane = Lane::kBulk}).submitted.ok());
  rig.RunAll();
  EXPECT_TRUE(rig.Send({.length = 100}).submitted.ok());
}

TEST(AdmissionTest, ALaneTakesTasksUpToItsBound) {
  Rig rig({}, {.max_queued_tasks = 5});
  for (Sent* task : rig.SendMany(5)) EXPECT_TRUE(task->submitted.ok());
  EXPECT_EQ(CodeOf(rig.Send()), StatusCode::kResourceExhausted);
}

TEST(AdmissionTest, AnEmptyLaneTakesATaskOfAnySize) {
  Rig rig({}, {.max_queued_tokens = 10});
  EXPECT_TRUE(rig.Send({.length = 5000}).submitted.ok());
  EXPECT_FALSE(rig.Send({.length = 1}).submitted.ok());
  rig.RunAll();
  EXPECT_EQ(rig.sent[0].code(), StatusCode::kOk);
  EXPECT_TRUE(rig.Send({.length = 5000}).submitted.ok());
}

TEST(AdmissionTest, ASmallTenantIsTakenUpToFiveQuarters) {
  Rig rig({}, {.max_queued_tokens = 16'000});
  rig.SendMany(160, {.length = 100, .tenant = "big"});
  EXPECT_FALSE(rig.Send({.length = 100, .tenant = "big"}).submitted.ok());
  // A sixteenth of the lane each, a quarter of it in all.
  for (const char* tenant : {"a", "b", "c", "d"}) {
    for (Sent* task : rig.SendMany(10, {.length = 100, .tenant = tenant})) {
      EXPECT_TRUE(task->submitted.ok());
    }
    EXPECT_FALSE(rig.Send({.length = 100, .tenant = tenant}).submitted.ok());
  }
  EXPECT_FALSE(rig.Send({.length = 1, .tenant = "e"}).submitted.ok());
}

TEST(AdmissionTest, ARefusalTellsTheWaitUntilThereIsRoom) {
  Rig rig({.token_us = 100}, {.max_queued_tokens = 10'000, .cost_model = LearnedCost(0, 100)});
  rig.SendMany(100, {.length = 100});
  // 1000 tokens too many, of 100 us each.
  const absl::Duration delay = RetryDelay(rig.Send({.length = 1000}).submitted);
  EXPECT_GE(delay, absl::Milliseconds(80));
  EXPECT_LE(delay, absl::Milliseconds(120));
  // In bulk, all of it waits for all of the interactive work or gets a tenth.
  rig.SendMany(100, {.length = 100, .lane = Lane::kBulk});
  const absl::Duration bulk = RetryDelay(rig.Send({.length = 1000, .lane = Lane::kBulk}).submitted);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(bulk), 1000, 100);
}

TEST(AdmissionTest, ARefusalBeforeAnythingWasMeasuredHasAWaitToo) {
  Rig rig({}, {.max_queued_tasks = 1});
  rig.Send();
  EXPECT_EQ(RetryDelay(rig.Send().submitted), absl::Milliseconds(100));
}

TEST(AdmissionTest, AWaitIsBetweenAMillisecondAndAMinute) {
  Rig slow({}, {.max_queued_tokens = 100, .cost_model = LearnedCost(0, 1e9)});
  slow.Send({.length = 100});
  EXPECT_EQ(RetryDelay(slow.Send().submitted), absl::Minutes(1));
  Rig fast({}, {.max_queued_tokens = 100, .cost_model = LearnedCost(0, 1e-3)});
  fast.Send({.length = 100});
  EXPECT_EQ(RetryDelay(fast.Send().submitted), absl::Milliseconds(1));
}

TEST(AdmissionTest, RetryDelayTravelsWithTheStatus) {
  absl::Status status = absl::UnavailableError("x");
  EXPECT_EQ(RetryDelay(status), absl::ZeroDuration());
  SetRetryDelay(&status, absl::Milliseconds(1500));
  EXPECT_EQ(RetryDelay(status), absl::Milliseconds(1500));
}

TEST(AdmissionTest, APassedDeadlineIsRefused) {
  Rig rig;
  EXPECT_EQ(CodeOf(rig.Send({.timeout = absl::ZeroDuration()})), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(CodeOf(rig.Send({.timeout = -absl::InfiniteDuration()})),
            StatusCode::kDeadlineExceeded);
}

TEST(AdmissionTest, AWaitPredictedBeyondTheDeadlineIsRefused) {
  Rig rig({.token_us = 100}, {.cost_model = LearnedCost(0, 100)});
  rig.SendMany(100, {.length = 100, .timeout = absl::Milliseconds(1500)});
  // A second's work is due before these; so they fit until it is 1.6 seconds' work.
  const auto later = rig.SendMany(100, {.length = 100, .timeout = absl::Milliseconds(1600)});
  const auto taken =
      std::count_if(later.begin(), later.end(), [](Sent* t) { return t->submitted.ok(); });
  EXPECT_NEAR(static_cast<double>(taken), 60, 2);
  EXPECT_EQ(CodeOf(*later.back()), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(later.back()->submitted.message()),
              HasSubstr("beyond the deadline in 1600 ms"));
  // What is due later does not count, nor do other tenants' tasks beyond its own.
  EXPECT_TRUE(rig.Send({.timeout = absl::Milliseconds(1)}).submitted.ok());
  EXPECT_TRUE(rig.Send({.tenant = "x", .timeout = absl::Milliseconds(1601)}).submitted.ok());
}

TEST(AdmissionTest, ThePassThatRunsCountsToTheWait) {
  Rig rig({.token_us = 100, .step_us = 1000}, {.cost_model = LearnedCost(0, 100)});
  rig.Send({.length = 5000});
  rig.Turn();
  rig.Turn();
  EXPECT_NEAR(absl::ToDoubleMilliseconds(rig.Snapshot().lanes[1].predicted_wait), 498, 10);
  EXPECT_EQ(CodeOf(rig.Send({.lane = Lane::kBulk, .timeout = absl::Milliseconds(400)})),
            StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(rig.Send({.lane = Lane::kBulk, .timeout = absl::Milliseconds(600)}).submitted.ok());
  // A short query overtakes it.
  EXPECT_TRUE(rig.Send({.timeout = absl::Milliseconds(400)}).submitted.ok());
}

TEST(AdmissionTest, SmallPassesSayLittleOfABacklog) {
  // 5 ms a pass whatever its size: ten tokens at a time make 500 us a token.
  Rig rig({.fixed_us = 5000, .token_us = 1}, {.cost_model = LearnedCost(5000, 1)});
  for (int i = 0; i < 50; ++i) {
    rig.Send({.length = 10});
    rig.RunAll();
  }
  // A thousand queries take two passes, not five seconds.
  for (Sent* task : rig.SendMany(1000, {.length = 10, .timeout = absl::Milliseconds(100)})) {
    ASSERT_TRUE(task->submitted.ok()) << task->submitted;
  }
  rig.RunAll();
  for (const Sent& task : rig.sent) EXPECT_EQ(task.code(), StatusCode::kOk);
}

TEST(AdmissionTest, CancelledTasksDoNotCountToTheWait) {
  Rig rig({.token_us = 100}, {.cost_model = LearnedCost(0, 100)});
  auto flag = std::make_shared<CancellationFlag>();
  rig.Send({.length = 4000, .timeout = absl::Seconds(1)});
  rig.Turn();
  // Two seconds' work in front, cancelled, and as much behind.
  rig.SendMany(200, {.length = 100, .timeout = absl::Seconds(5), .cancellation = flag});
  rig.SendMany(200, {.length = 100, .timeout = absl::Seconds(60)});
  flag->Cancel();
  rig.clock.Advance(absl::Milliseconds(2));
  rig.Turn();
  ASSERT_NEAR(static_cast<double>(rig.Snapshot().lanes[0].tasks), 200, 3);
  EXPECT_TRUE(rig.Send({.timeout = absl::Milliseconds(1500)}).submitted.ok());
}

TEST(AdmissionTest, WhatWasGivenUpFarBackIsForgotten) {
  Rig rig({.max_batch_sequences = 1});
  // Due late, cancelled at once, behind work that never ends.
  for (int i = 0; i < 20'000; ++i) {
    auto flag = std::make_shared<CancellationFlag>();
    rig.Send({.timeout = absl::Hours(1), .cancellation = flag});
    rig.Send({.timeout = absl::Seconds(1)});
    flag->Cancel();
    rig.clock.Advance(absl::Milliseconds(1));
    rig.Turn();
    rig.Turn();
    ASSERT_LE(rig.Snapshot().lanes[0].tasks, 3);
  }
  rig.RunAll();
}

TEST(AdmissionTest, MalformedTasksAreRefused) {
  Rig rig({.max_batch_tokens = 100, .max_sequence_tokens = 50});
  EXPECT_EQ(CodeOf(rig.Send({.length = 51})), StatusCode::kInvalidArgument);
  EXPECT_EQ(CodeOf(rig.Send({.output = {.dimensions = 0}})), StatusCode::kInvalidArgument);
  EXPECT_TRUE(rig.Send({.length = 50}).submitted.ok());
  EmbedTask empty;
  empty.output.dimensions = 4;
  empty.done = [](TaskResult) { FAIL(); };
  EXPECT_EQ(rig.core.Submit(std::move(empty), rig.now()).code(), StatusCode::kInvalidArgument);
  EmbedTask mute;
  mute.token_ids = {1};
  mute.output.dimensions = 4;
  EXPECT_EQ(rig.core.Submit(std::move(mute), rig.now()).code(), StatusCode::kInvalidArgument);
}

TEST(AdmissionTest, ADeadlineBeyondAllClocksIsNone) {
  Rig rig;
  Sent& task = rig.Send({.timeout = absl::Hours(24 * 365 * 1000)});
  rig.RunAll();
  EXPECT_EQ(task.code(), StatusCode::kOk);
}

}  // namespace
}  // namespace quiver
