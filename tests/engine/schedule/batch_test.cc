#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/schedule/rig.h"

namespace quiver {
namespace {

using absl::StatusCode;
using ::testing::ElementsAre;

void ExpectAllOk(const Rig& rig) {
  for (const Sent& task : rig.sent) EXPECT_EQ(task.code(), StatusCode::kOk);
}

TEST(BatchTest, EverythingThatIsQueuedAndFitsRunsTogether) {
  Rig rig;
  rig.SendMany(100);
  rig.RunAll();
  EXPECT_EQ(rig.backend.Passes().size(), 1u);
  ExpectAllOk(rig);
}

TEST(BatchTest, NoBatchIsOverTheBudgetOfTokensOrSequences) {
  Rig rig({.max_batch_sequences = 7}, {.max_batch_tokens = 300});
  for (int i = 0; i < 500; ++i) {
    rig.Send({.length = 1 + i * 37 % 290, .lane = i % 2 == 0 ? Lane::kBulk : Lane::kInteractive});
  }
  rig.RunAll();
  for (const auto& pass : rig.backend.Passes()) {
    EXPECT_LE(pass.tokens, 300);
    EXPECT_LE(pass.lengths.size(), 7u);
  }
  ExpectAllOk(rig);
}

TEST(BatchTest, AnInputOfExactlyTheMaximumRuns) {
  Rig rig({.max_batch_tokens = 512, .max_sequence_tokens = 512});
  rig.Send({.length = 512});
  rig.Send({.length = 512});
  rig.RunAll();
  EXPECT_EQ(rig.backend.Passes().size(), 2u);
  ExpectAllOk(rig);
}

TEST(BatchTest, AnInputLongerThanABatchsBudgetRunsAlone) {
  Rig rig({.max_batch_tokens = 1000, .max_sequence_tokens = 1000}, {.max_batch_tokens = 100});
  for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
    rig.Send({.length = 10, .lane = lane});
    rig.Send({.length = 1000, .lane = lane});
    rig.Send({.length = 10, .lane = lane});
  }
  rig.RunAll();
  for (const auto& pass : rig.backend.Passes()) {
    if (pass.tokens > 100) {
      EXPECT_THAT(pass.lengths, ElementsAre(1000));
    }
  }
  ExpectAllOk(rig);
}

TEST(BatchTest, TenThousandItemsAllRun) {
  Rig rig({.token_us = 1});
  rig.SendMany(10'000, {.length = 20});
  rig.RunAll();
  EXPECT_LE(rig.backend.Passes().size(), 30u);
  ExpectAllOk(rig);
}

TEST(BatchTest, AShortInputBeforeOneTooLongForTheRestOfTheBatchRuns) {
  Rig rig({.max_batch_tokens = 100, .max_sequence_tokens = 100});
  for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
    rig.Send({.length = 1, .lane = lane});
    rig.Send({.length = 100, .lane = lane});
  }
  rig.RunAll();
  EXPECT_EQ(rig.backend.Passes().size(), 4u);
  ExpectAllOk(rig);
}

TEST(BatchTest, ABatchIsPredictedToTakeNoLongerThanItsTime) {
  // 0.1 us for a pair of tokens: 1000 tokens in one sequence take 100 ms, in a hundred 1 ms.
  const FakeBackend::Options device{
      .max_batch_tokens = 100'000, .fixed_us = 10, .token_us = 1, .token_pair_us = 0.1};
  Rig rig(device, {.interactive_batch_time = absl::Milliseconds(20),
                   .bulk_batch_time = absl::Milliseconds(250),
                   .cost_model = LearnedCost(10, 1, 0.1)});
  for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
    rig.SendMany(20, {.length = 300, .lane = lane});
    rig.SendMany(500, {.length = 10, .lane = lane});
    rig.SendMany(3, {.length = 2000, .lane = lane});
  }
  rig.RunAll();
  int alone = 0;
  for (const BatchReport& batch : rig.observer.batches()) {
    if (batch.sequences == 1) {
      ++alone;
      continue;
    }
    EXPECT_LE(batch.duration, absl::Milliseconds(batch.lane == Lane::kInteractive ? 20.5 : 251));
  }
  EXPECT_GE(alone, 6);
  ExpectAllOk(rig);
}

TEST(BatchTest, TheTimeOfABatchIsAtLeastEightFixedCosts) {
  Rig rig({.fixed_us = 10'000, .token_us = 10},
          {.interactive_batch_time = absl::Milliseconds(1), .cost_model = LearnedCost(10'000, 10)});
  rig.SendMany(1000, {.length = 10});
  rig.RunAll();
  for (const BatchReport& batch : rig.observer.batches()) {
    EXPECT_LE(batch.duration, absl::Milliseconds(81));
  }
  EXPECT_NEAR(rig.backend.Passes()[0].tokens, 7000, 20);
}

TEST(BatchTest, SmallBulkTasksFillWhatALargeOneLeavesButNotForever) {
  Rig rig({.max_batch_tokens = 100, .max_sequence_tokens = 100});
  rig.SendMany(1, {.length = 50, .lane = Lane::kBulk});
  Sent& large = rig.Send({.length = 90, .lane = Lane::kBulk});
  auto small = rig.SendMany(100, {.length = 40, .lane = Lane::kBulk});
  rig.RunAll();
  const auto passes = rig.backend.Passes();
  EXPECT_THAT(passes[0].lengths, ElementsAre(50, 40));
  // First in line by then, it opens the next batch.
  EXPECT_THAT(passes[1].lengths, ElementsAre(90));
  EXPECT_LT(large.rank, small[1]->rank);
}

TEST(BatchTest, AnInteractiveTaskIsNotPassedOverByLaterOnesOfItsTenant) {
  Rig rig({.max_batch_tokens = 100, .max_sequence_tokens = 100});
  rig.Send({.length = 50});
  rig.Send({.length = 90});
  rig.Send({.length = 40});
  rig.Send({.length = 45, .tenant = "other"});
  rig.RunAll();
  // The other tenant's may go.
  EXPECT_THAT(rig.backend.Passes()[0].lengths, ElementsAre(50, 45));
  EXPECT_THAT(rig.backend.Passes()[1].lengths, ElementsAre(90));
}

TEST(BatchTest, ABulkTaskWithADeadlineIsNotPassedOver) {
  Rig rig({.max_batch_tokens = 100, .max_sequence_tokens = 100});
  const absl::Duration soon = absl::Seconds(5);
  rig.Send({.length = 50, .lane = Lane::kBulk, .timeout = soon});
  rig.Send({.length = 90, .lane = Lane::kBulk, .timeout = soon});
  rig.Send({.length = 40, .lane = Lane::kBulk});
  rig.RunAll();
  EXPECT_THAT(rig.backend.Passes()[0].lengths, ElementsAre(50));
}

TEST(BatchTest, ManyThatDoNotFitDoNotHoldUpASeal) {
  Rig rig({.max_batch_tokens = 100, .max_sequence_tokens = 100});
  rig.Send({.length = 50, .lane = Lane::kBulk});
  rig.SendMany(200, {.length = 60, .lane = Lane::kBulk});
  rig.RunAll();
  EXPECT_EQ(rig.backend.Passes().size(), 201u);
  ExpectAllOk(rig);
}

}  // namespace
}  // namespace quiver
