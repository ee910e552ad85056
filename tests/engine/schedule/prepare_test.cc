// The batch after the running one, packed ahead of its turn.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/schedule/rig.h"

namespace quiver {
namespace {

using absl::StatusCode;
using ::testing::ElementsAre;

// 1 ms a token, in steps of 1 ms; two sequences of 10 tokens a batch.
const FakeBackend::Options kDevice = {
    .max_batch_tokens = 20, .max_sequence_tokens = 20, .token_us = 1000, .step_us = 1000};
const Scheduler::Options kOptions = {.bulk_share = 0, .step_budget_us = 1000};

// With a pass of two sequences under way.
class PrepareTest : public ::testing::Test {
 protected:
  void Begin(Lane lane) {
    rig_.SendMany(2, {.lane = lane});
    rig_.Turn();
    rig_.Turn();
  }
  std::vector<int> Lengths(size_t pass) { return rig_.backend.Passes()[pass].lengths; }

  Rig rig_{kDevice, kOptions};
};

TEST_F(PrepareTest, AFullBatchIsRunAsItWasPacked) {
  Begin(Lane::kBulk);
  rig_.SendMany(3, {.lane = Lane::kBulk});
  EXPECT_TRUE(rig_.Prepare());
  EXPECT_FALSE(rig_.Prepare());
  EXPECT_EQ(rig_.Snapshot().lanes[1].tasks, 3);
  rig_.RunAll();
  ASSERT_EQ(rig_.backend.Passes().size(), 3u);
  EXPECT_TRUE(rig_.backend.Passes()[1].prepared);
  EXPECT_FALSE(rig_.backend.Passes()[2].prepared);
  for (const Sent& task : rig_.sent) EXPECT_EQ(task.code(), StatusCode::kOk);
}

TEST_F(PrepareTest, WhatComesLaterJoinsABatchThatHasRoom) {
  Begin(Lane::kInteractive);
  rig_.Send();
  EXPECT_TRUE(rig_.Prepare());
  rig_.SendMany(2);
  rig_.RunAll();
  EXPECT_THAT(Lengths(1), ElementsAre(10, 10));
  EXPECT_FALSE(rig_.backend.Passes()[1].prepared);
  EXPECT_THAT(Lengths(2), ElementsAre(10));
}

TEST_F(PrepareTest, WhatNobodyWaitsForIsTakenOut) {
  Begin(Lane::kBulk);
  auto flag = std::make_shared<CancellationFlag>();
  Sent& gone = rig_.Send({.lane = Lane::kBulk, .cancellation = flag});
  Sent& late = rig_.Send({.lane = Lane::kBulk, .timeout = absl::Milliseconds(100)});
  EXPECT_TRUE(rig_.Prepare());
  flag->Cancel();
  rig_.Turn();
  EXPECT_EQ(gone.code(), StatusCode::kCancelled);
  rig_.RunAll();
  EXPECT_EQ(late.code(), StatusCode::kOk);
  EXPECT_THAT(Lengths(1), ElementsAre(10));
}

TEST_F(PrepareTest, ABatchThatNobodyWaitsForIsNotRun) {
  Begin(Lane::kBulk);
  rig_.SendMany(2, {.lane = Lane::kBulk, .timeout = absl::Milliseconds(5)});
  EXPECT_TRUE(rig_.Prepare());
  rig_.RunAll();
  EXPECT_EQ(rig_.backend.Passes().size(), 1u);
  for (int i : {2, 3}) {
    EXPECT_EQ(rig_.sent[static_cast<size_t>(i)].code(), StatusCode::kDeadlineExceeded);
  }
  EXPECT_THAT(rig_.observer.dropped(), ::testing::Each(Dropped{Lane::kBulk, DropPoint::kQueue,
                                                               StatusCode::kDeadlineExceeded}));
}

TEST_F(PrepareTest, InteractiveWorkOvertakesAPreparedBulkBatch) {
  Begin(Lane::kBulk);
  auto bulk = rig_.SendMany(2, {.lane = Lane::kBulk});
  EXPECT_TRUE(rig_.Prepare());
  Sent& query = rig_.Send();
  rig_.RunAll();
  EXPECT_EQ(query.rank, 0);
  EXPECT_TRUE(rig_.backend.Passes()[2].prepared);
}

TEST_F(PrepareTest, WhatIsPreparedWaitsLikeTheRest) {
  Begin(Lane::kBulk);
  rig_.SendMany(2, {.lane = Lane::kBulk});
  EXPECT_TRUE(rig_.Prepare());
  EXPECT_FALSE(rig_.core.idle());
  rig_.core.FailWaiting(absl::UnavailableError("stopped"), rig_.now());
  rig_.Deliver();
  EXPECT_EQ(rig_.sent[2].code(), StatusCode::kUnavailable);
  EXPECT_FALSE(rig_.sent[0].done());
  rig_.RunAll();
  EXPECT_EQ(rig_.sent[0].code(), StatusCode::kOk);
}

TEST(PreparedRetryTest, APassThatFailsIsTriedAgainBesideAPreparedBatch) {
  FakeBackend::Options device = kDevice;
  device.on_step = [](const PackedBatch& batch, int step) {
    return batch.token_ids[0] == 1 && batch.num_sequences() > 1 && step > 0
               ? absl::InternalError("broken")
               : absl::OkStatus();
  };
  Rig rig(device, kOptions);
  rig.Send({.ids = Ids(10)});
  rig.SendMany(4);
  rig.Turn();
  rig.Turn();
  EXPECT_TRUE(rig.Prepare());
  rig.RunAll();
  EXPECT_TRUE(rig.backend.Passes()[1].prepared);
  EXPECT_EQ(rig.backend.Passes().size(), 5u);
  for (const Sent& task : rig.sent) EXPECT_EQ(task.code(), StatusCode::kOk);
}

TEST_F(PrepareTest, NothingIsPreparedWithoutARunningPassOrWaitingWork) {
  EXPECT_FALSE(rig_.Prepare());
  rig_.SendMany(2);
  EXPECT_FALSE(rig_.Prepare());
  rig_.Turn();
  // Begun, not run.
  EXPECT_FALSE(rig_.Prepare());
  rig_.Turn();
  EXPECT_FALSE(rig_.Prepare());
}

TEST(PreparationTimeTest, IsAnEighthOfThePassBeforeItsPredictedEnd) {
  Scheduler::Options options = kOptions;
  options.cost_model = LearnedCost(0, 1000);
  Rig rig(kDevice, options);
  rig.SendMany(2);
  rig.Turn();
  const int64_t begun = rig.now();
  rig.Turn();
  // Before the first step: 20 ms, less 2.5.
  EXPECT_NEAR(static_cast<double>(rig.core.prepare_at() - begun), 17.5e6, 1e5);
}

TEST(PreparationTimeTest, TheGapIsReportedOfAPassThatWaitedForTheDevice) {
  Rig rig(kDevice, kOptions);
  rig.SendMany(3);
  rig.RunAll();
  rig.Send();
  rig.RunAll();
  const auto batches = rig.observer.batches();
  ASSERT_EQ(batches.size(), 3u);
  EXPECT_FALSE(batches[0].gap.has_value());
  EXPECT_EQ(batches[1].gap, absl::ZeroDuration());
  EXPECT_FALSE(batches[2].gap.has_value());
}

}  // namespace
}  // namespace quiver
