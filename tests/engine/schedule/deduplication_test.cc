#include "gtest/gtest.h"
#include "tests/engine/schedule/rig.h"

namespace quiver {
namespace {

using absl::StatusCode;

TEST(DeduplicationTest, EqualTasksAreComputedOnceAndEachIsAnswered) {
  Rig rig;
  rig.SendMany(10, {.ids = Ids(5)});
  rig.RunAll();
  for (const Sent& task : rig.sent) EXPECT_EQ(task.code(), StatusCode::kOk);
  EXPECT_EQ(rig.backend.TokensRun(), 5);
  EXPECT_EQ(rig.observer.joined(), 9);
}

TEST(DeduplicationTest, OtherIdsOutputsOrLanesAreOtherWork) {
  Rig rig;
  rig.Send({.ids = Ids(5)});
  rig.Send({.ids = Ids(5, 2)});
  rig.Send({.ids = Ids(6)});
  rig.Send({.ids = Ids(5), .output = {.dimensions = 5}});
  rig.Send({.ids = Ids(5), .output = {.dimensions = 4, .normalize = false}});
  rig.Send({.ids = Ids(5), .output = {.dimensions = 4, .type = OutputType::kInt8}});
  rig.Send({.lane = Lane::kBulk, .ids = Ids(5)});
  rig.RunAll();
  EXPECT_EQ(rig.backend.TokensRun(), 36);
}

TEST(DeduplicationTest, ATaskJoinsOneThatRuns) {
  Rig rig({.token_us = 1000, .step_us = 1000}, {.step_budget_us = 1000});
  rig.Send({.ids = Ids(5)});
  rig.Turn();
  rig.Turn();
  Sent& late = rig.Send({.ids = Ids(5)});
  rig.RunAll();
  EXPECT_EQ(late.code(), StatusCode::kOk);
  EXPECT_EQ(late.done_at - late.at, absl::Milliseconds(4));
  EXPECT_EQ(late.result->queue_time, absl::ZeroDuration());
  EXPECT_EQ(rig.backend.TokensRun(), 5);
  rig.Send({.ids = Ids(5)});
  rig.RunAll();
  EXPECT_EQ(rig.backend.TokensRun(), 10);
}

TEST(DeduplicationTest, OneThatCancelsOrExpiresDoesNotHarmTheOther) {
  for (const bool running : {false, true}) {
    for (const bool first_goes : {false, true}) {
      Rig rig({.token_us = 1000, .step_us = 1000}, {.step_budget_us = 1000});
      auto flag = std::make_shared<CancellationFlag>();
      const Wish goes{.cancellation = flag, .ids = Ids(5)};
      const Wish expires{.timeout = absl::Milliseconds(4), .ids = Ids(5)};
      const Wish stays{.ids = Ids(5)};
      Sent& a = rig.Send(first_goes ? goes : stays);
      Sent& b = rig.Send(first_goes ? stays : goes);
      Sent& c = rig.Send(expires);
      if (running) {
        rig.Turn();
        rig.Turn();
      } else {
        rig.clock.Advance(absl::Milliseconds(4));
      }
      flag->Cancel();
      rig.RunAll();
      EXPECT_EQ((first_goes ? a : b).code(), StatusCode::kCancelled);
      EXPECT_EQ((first_goes ? b : a).code(), StatusCode::kOk);
      EXPECT_EQ(c.code(), StatusCode::kDeadlineExceeded);
    }
  }
}

TEST(DeduplicationTest, AnUrgentTaskPullsItsEqualForward) {
  Rig rig({.max_batch_sequences = 1});
  Sent& patient = rig.Send({.ids = Ids(5)});
  Sent& others = rig.Send({.timeout = absl::Seconds(5)});
  Sent& urgent = rig.Send({.timeout = absl::Seconds(1), .ids = Ids(5)});
  rig.RunAll();
  EXPECT_LT(urgent.rank, others.rank);
  EXPECT_LT(patient.rank, others.rank);
  EXPECT_EQ(rig.backend.Passes().size(), 2u);
}

TEST(DeduplicationTest, ATenantDoesNotWaitInTheQueueOfTheOneThatItsTaskIsEqualTo) {
  Rig rig({.max_batch_tokens = 100, .max_sequence_tokens = 100});
  rig.SendMany(1000, {.tenant = "big"});
  Sent& last = rig.Send({.tenant = "big", .ids = Ids(10)});
  Sent& equal = rig.Send({.tenant = "small", .ids = Ids(10)});
  rig.RunAll();
  EXPECT_LE(equal.rank, 12);
  EXPECT_LE(last.rank, 12);
  EXPECT_EQ(rig.backend.TokensRun(), 10'010);
}

TEST(DeduplicationTest, AFailingSequenceFailsForEverybodyWhoWaitsForIt) {
  Rig rig({.on_step = [](const PackedBatch& batch, int) {
    return batch.token_ids[0] == 1 ? absl::InternalError("broken") : absl::OkStatus();
  }});
  rig.SendMany(3, {.ids = Ids(5)});
  rig.SendMany(3);
  rig.Turn();
  rig.Send({.ids = Ids(5)});
  rig.Turn();
  // Joins the one that is tried again.
  rig.Send({.ids = Ids(5)});
  EXPECT_EQ(rig.Snapshot().lanes[0].tasks, 8);
  rig.RunAll();
  for (const Sent& task : rig.sent) {
    EXPECT_EQ(task.code(), task.ids[0] == 1 ? StatusCode::kInternal : StatusCode::kOk);
  }
}

TEST(DeduplicationTest, EqualTasksAreBoundedInNumberAndCostNoTokens) {
  Rig rig({.token_us = 1000, .step_us = 1000},
          {.max_queued_tokens = 100, .max_queued_tasks = 10, .step_budget_us = 1000});
  for (Sent* task : rig.SendMany(10, {.ids = Ids(90)})) EXPECT_TRUE(task->submitted.ok());
  EXPECT_FALSE(rig.Send({.ids = Ids(90)}).submitted.ok());
  rig.Turn();
  // They run now, and more may join: as many again.
  for (Sent* task : rig.SendMany(10, {.ids = Ids(90)})) EXPECT_TRUE(task->submitted.ok());
  EXPECT_FALSE(rig.Send({.ids = Ids(90)}).submitted.ok());
  EXPECT_TRUE(rig.Send().submitted.ok());
  rig.RunAll();
  rig.Send({.ids = Ids(90)});
  rig.Turn();
  for (Sent* task : rig.SendMany(10, {.ids = Ids(90)})) EXPECT_TRUE(task->submitted.ok());
  rig.RunAll();
}

TEST(DeduplicationTest, ManyThatCancelTogetherAreAnsweredInLinearTime) {
  Rig rig;
  auto flag = std::make_shared<CancellationFlag>();
  rig.SendMany(100'000, {.cancellation = flag, .ids = Ids(1)});
  flag->Cancel();
  rig.RunAll();
  EXPECT_EQ(rig.sent.back().code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace quiver
