// Every accepted task is answered exactly once, whatever happens; the rig checks that at its end.
#include <stdexcept>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/schedule/rig.h"

namespace quiver {
namespace {

using absl::StatusCode;
using ::testing::HasSubstr;

TEST(CompletionTest, ATaskGetsItsOwnVectorAndItsTimes) {
  Rig rig({.fixed_us = 100, .token_us = 10});
  Sent& first = rig.Send({.length = 10});
  rig.clock.Advance(absl::Microseconds(50));
  rig.RunAll();
  ASSERT_EQ(first.code(), StatusCode::kOk);
  EXPECT_EQ(first.result->queue_time, absl::Microseconds(50));
  EXPECT_EQ(first.result->compute_time, absl::Microseconds(200));
}

TEST(CompletionTest, FinalUnderfullBatchRunsOnDrain) {
  Rig rig({.max_batch_tokens = 100, .max_sequence_tokens = 100});
  rig.SendMany(11);
  rig.core.StopAccepting();
  EXPECT_EQ(rig.Send().submitted.code(), StatusCode::kUnavailable);
  rig.RunAll();
  EXPECT_TRUE(rig.core.idle());
  ASSERT_EQ(rig.backend.Passes().size(), 2u);
  EXPECT_EQ(rig.backend.Passes()[1].tokens, 10);
  EXPECT_EQ(rig.sent[10].code(), StatusCode::kOk);
}

TEST(CompletionTest, CancelledInTheQueueIsNotComputed) {
  Rig rig;
  auto flag = std::make_shared<CancellationFlag>();
  Sent& gone = rig.Send({.cancellation = flag});
  Sent& other = rig.Send();
  flag->Cancel();
  rig.RunAll();
  EXPECT_EQ(gone.code(), StatusCode::kCancelled);
  EXPECT_EQ(other.code(), StatusCode::kOk);
  EXPECT_EQ(rig.backend.Passes()[0].lengths.size(), 1u);
}

TEST(CompletionTest, CancelledAtItsDeadlineIsLate) {
  Rig rig;
  auto flag = std::make_shared<CancellationFlag>();
  Sent& late = rig.Send({.timeout = kCancelledAtDeadline, .cancellation = flag});
  Sent& gone = rig.Send({.timeout = 2 * kCancelledAtDeadline, .cancellation = flag});
  flag->Cancel();
  rig.RunAll();
  EXPECT_EQ(late.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(gone.code(), StatusCode::kCancelled);
}

TEST(CompletionTest, CancelledBetweenStepsIsAnsweredAtOnceAndTheRestGoesOn) {
  Rig rig({.token_us = 1000, .step_us = 1000}, {.step_budget_us = 1000});
  auto flag = std::make_shared<CancellationFlag>();
  Sent& gone = rig.Send({.cancellation = flag});
  Sent& other = rig.Send();
  rig.Turn();
  rig.Turn();
  flag->Cancel();
  rig.Turn();
  EXPECT_EQ(gone.code(), StatusCode::kCancelled);
  EXPECT_FALSE(other.done());
  rig.RunAll();
  EXPECT_EQ(other.code(), StatusCode::kOk);
}

TEST(CompletionTest, APassThatNobodyWaitsForIsAbandoned) {
  Rig rig({.token_us = 1000, .step_us = 1000}, {.step_budget_us = 1000});
  auto flag = std::make_shared<CancellationFlag>();
  auto gone = rig.SendMany(3, {.cancellation = flag});
  rig.Turn();
  rig.Turn();
  const absl::Time cancelled = rig.clock.Now();
  flag->Cancel();
  rig.RunAll();
  EXPECT_EQ(rig.clock.Now(), cancelled);
  for (Sent* task : gone) EXPECT_EQ(task->code(), StatusCode::kCancelled);
  EXPECT_FALSE(rig.backend.Passes()[0].finished);
  rig.Send();
  rig.RunAll();
  EXPECT_EQ(rig.sent.back().code(), StatusCode::kOk);
}

TEST(CompletionTest, ExpiredInTheQueueIsNotComputed) {
  Rig rig;
  Sent& late = rig.Send({.timeout = absl::Milliseconds(5)});
  rig.clock.Advance(absl::Milliseconds(5));
  rig.RunAll();
  EXPECT_EQ(late.code(), StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(rig.backend.Passes().empty());
}

TEST(CompletionTest, ExpiredBetweenStepsIsGivenUp) {
  Rig rig({.token_us = 1000, .step_us = 1000}, {.step_budget_us = 1000});
  Sent& late = rig.Send({.timeout = absl::Microseconds(2500)});
  rig.RunAll();
  EXPECT_EQ(late.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(late.done_at - late.at, absl::Milliseconds(3));
}

TEST(CompletionTest, AnExpiredTaskIsAnsweredWhileAnotherPassRuns) {
  Rig rig({.max_batch_sequences = 1, .token_us = 1000, .step_us = 1000}, {.step_budget_us = 1000});
  Sent& running = rig.Send({.length = 1000});
  rig.Turn();
  Sent& late = rig.Send({.timeout = absl::Milliseconds(20)});
  rig.RunWhile([&] { return !late.done(); });
  EXPECT_EQ(late.code(), StatusCode::kDeadlineExceeded);
  EXPECT_LE(late.done_at - late.at, absl::Milliseconds(23));
  EXPECT_FALSE(running.done());
}

TEST(CompletionTest, AFailingSequenceFailsAlone) {
  Rig rig({.on_sequence = [](absl::Span<const TokenId> ids) {
    return ids[0] == 1 ? absl::InternalError("NaN") : absl::OkStatus();
  }});
  Sent& bad = rig.Send({.ids = Ids(10)});
  Sent& good = rig.Send();
  rig.RunAll();
  EXPECT_EQ(bad.code(), StatusCode::kInternal);
  EXPECT_EQ(good.code(), StatusCode::kOk);
  EXPECT_EQ(rig.backend.Passes().size(), 1u);
}

// Whether the batch has the sequence that the tests call faulty.
bool HasFault(const PackedBatch& batch) {
  for (int s = 0; s < batch.num_sequences(); ++s) {
    if (batch.token_ids[static_cast<size_t>(batch.cu_seqlens[s])] == 1) return true;
  }
  return false;
}

TEST(CompletionTest, AFailingPassIsHalvedUntilTheSequenceAtFaultStandsAlone) {
  enum class Fault { kBegin, kStep, kThrow, kThrowOdd };
  for (const Fault fault : {Fault::kBegin, Fault::kStep, Fault::kThrow, Fault::kThrowOdd}) {
    for (int position = 0; position < 13; ++position) {
      Rig rig({.on_begin =
                   [&](const PackedBatch& batch) {
                     return fault == Fault::kBegin && HasFault(batch)
                                ? absl::InternalError("broken")
                                : absl::OkStatus();
                   },
               .on_step = [&](const PackedBatch& batch, int) -> absl::Status {
                 if (!HasFault(batch)) return absl::OkStatus();
                 if (fault == Fault::kThrow) throw std::runtime_error("broken");
                 if (fault == Fault::kThrowOdd) throw 42;
                 return absl::InternalError("broken");
               }});
      for (int i = 0; i < 13; ++i) {
        Wish wish;
        if (i == position) wish.ids = Ids(10);
        rig.Send(wish);
      }
      rig.RunAll();
      for (int i = 0; i < 13; ++i) {
        EXPECT_EQ(rig.sent[static_cast<size_t>(i)].code(),
                  i == position ? StatusCode::kInternal : StatusCode::kOk);
      }
      // The whole, and two halves for each of at most four splits.
      EXPECT_LE(rig.backend.Passes().size(), 9u);
    }
  }
}

TEST(CompletionTest, ADeviceThatIsGoneFailsEveryTask) {
  Rig rig({.on_begin = [](const PackedBatch&) { return absl::InternalError("no device"); }});
  auto all = rig.SendMany(100);
  rig.RunAll();
  for (Sent* task : all) {
    EXPECT_EQ(task->code(), StatusCode::kInternal);
    EXPECT_THAT(std::string(task->result->vector.status().message()), HasSubstr("no device"));
  }
}

TEST(CompletionTest, CancelledWhileWaitingForARetryIsNotTriedAgain) {
  auto flag = std::make_shared<CancellationFlag>();
  Rig rig({.on_step = [&](const PackedBatch& batch, int) {
    return batch.num_sequences() > 1 ? absl::InternalError("broken") : absl::OkStatus();
  }});
  Sent& kept = rig.Send();
  auto gone = rig.SendMany(3, {.cancellation = flag});
  rig.Turn();
  rig.Turn();
  EXPECT_EQ(rig.Snapshot().lanes[0].tasks, 4);
  flag->Cancel();
  rig.RunAll();
  EXPECT_EQ(kept.code(), StatusCode::kOk);
  for (Sent* task : gone) EXPECT_EQ(task->code(), StatusCode::kCancelled);
}

// A backend whose pass forgets a result, throws in the end, or is no pass.
class OddBackend : public Backend {
 public:
  enum class Oddity { kNoPass, kFewResults, kThrowsInFinish };
  explicit OddBackend(Oddity oddity) : oddity_(oddity) {
    info_.max_batch_tokens = info_.max_sequence_tokens = 100;
    info_.max_batch_sequences = 4;
  }
  const BackendInfo& info() const override { return info_; }
  absl::StatusOr<std::unique_ptr<Pass>> Begin(PackedBatch) override {
    if (oddity_ == Oddity::kNoPass) return std::unique_ptr<Pass>();
    return std::make_unique<OddPass>(oddity_);
  }

 private:
  class OddPass : public Pass {
   public:
    explicit OddPass(Oddity oddity) : oddity_(oddity) {}
    absl::StatusOr<bool> Run(int64_t) override { return true; }
    std::vector<absl::StatusOr<EncodedVector>> Finish() override {
      if (oddity_ == Oddity::kThrowsInFinish) throw std::bad_alloc();
      return {};
    }

   private:
    const Oddity oddity_;
  };
  const Oddity oddity_;
  BackendInfo info_;
};

TEST(CompletionTest, ABackendThatBreaksItsContractFailsTheTasks) {
  for (const auto oddity : {OddBackend::Oddity::kNoPass, OddBackend::Oddity::kFewResults,
                            OddBackend::Oddity::kThrowsInFinish}) {
    OddBackend backend(oddity);
    SchedulerCore core({}, backend.info(), nullptr);
    absl::Mutex mutex;
    DeviceLoop loop(&core, &mutex, &backend, [] { return int64_t{1}; });
    int failed = 0;
    for (int i = 0; i < 3; ++i) {
      EmbedTask task;
      task.token_ids = Ids(10, i);
      task.output.dimensions = 4;
      task.done = [&](TaskResult r) { failed += absl::IsInternal(r.vector.status()); };
      ASSERT_TRUE(core.Submit(std::move(task), 1).ok());
    }
    while (loop.Turn()) {
    }
    EXPECT_EQ(failed, 3);
  }
}

// A context that one batch breaks: the third pass fails, and so would every later one.
TEST(CompletionTest, WhenTheDeviceIsLostAllIsUnavailableAndNothingIsTriedAgain) {
  int passes = 0;
  const auto broken = [&passes] {
    return passes < 3 ? absl::OkStatus() : absl::InternalError("illegal address");
  };
  Rig rig({.max_batch_tokens = 40,
           .max_sequence_tokens = 40,
           .on_begin = [&](const PackedBatch&) { return ++passes, broken(); },
           .on_check_device = broken});
  auto tasks = rig.SendMany(20);
  rig.RunAll();
  EXPECT_EQ(passes, 3);
  for (int i = 0; i < 20; ++i) {
    if (i < 8) {
      EXPECT_EQ(tasks[i]->code(), StatusCode::kOk);
      continue;
    }
    EXPECT_EQ(tasks[i]->code(), StatusCode::kUnavailable);
    EXPECT_THAT(std::string(tasks[i]->result->vector.status().message()),
                HasSubstr("the device is lost: illegal address"));
  }
  EXPECT_TRUE(rig.core.idle());
  EXPECT_EQ(rig.Send().submitted.code(), StatusCode::kUnavailable);
  ASSERT_EQ(rig.lost.size(), 1u);
  EXPECT_THAT(std::string(rig.lost[0].message()), HasSubstr("illegal address"));
}

TEST(CompletionTest, APassThatFailsOnADeviceThatIsWellLosesNothingElse) {
  int checks = 0;
  Rig rig({.on_step =
               [&](const PackedBatch& batch, int) {
                 return batch.num_sequences() > 1 ? absl::InternalError("broken")
                                                  : absl::OkStatus();
               },
           .on_check_device =
               [&] {
                 ++checks;
                 return absl::OkStatus();
               }});
  rig.SendMany(3);
  rig.RunAll();
  for (const Sent& task : rig.sent) EXPECT_EQ(task.code(), StatusCode::kOk);
  EXPECT_GT(checks, 0);
  EXPECT_TRUE(rig.lost.empty());
}

TEST(CompletionTest, WhatIsLeftAtTheDrainsDeadlineIsFailedWaitingOrRunning) {
  Rig rig({.max_batch_tokens = 20, .max_sequence_tokens = 20, .token_us = 1000, .step_us = 1000},
          {.step_budget_us = 1000});
  auto all = rig.SendMany(4);
  auto bulk = rig.SendMany(4, {.lane = Lane::kBulk});
  rig.Turn();
  rig.Turn();
  rig.core.StopAccepting();
  rig.core.FailWaiting(absl::UnavailableError("stopped"), rig.now());
  rig.core.FailRunning(absl::UnavailableError("stopped"), rig.now());
  EXPECT_FALSE(rig.core.idle());
  rig.Deliver();
  EXPECT_TRUE(rig.core.idle());
  for (Sent* task : all) EXPECT_EQ(task->code(), StatusCode::kUnavailable);
  for (Sent* task : bulk) EXPECT_EQ(task->code(), StatusCode::kUnavailable);
  EXPECT_FALSE(rig.core.quiet());
  rig.RunAll();
  EXPECT_TRUE(rig.core.quiet());
}

}  // namespace
}  // namespace quiver
