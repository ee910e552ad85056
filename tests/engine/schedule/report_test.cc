#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/schedule/rig.h"

namespace quiver {
namespace {

using absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

FakeBackend::Options Stepping() { return {.token_us = 100, .step_us = 1000}; }
Scheduler::Options Known() { return {.step_budget_us = 1000, .cost_model = LearnedCost(0, 100)}; }

TEST(ReportTest, ASnapshotOfNothingIsEmpty) {
  Rig rig;
  const QueueSnapshot snapshot = rig.Snapshot();
  EXPECT_EQ(snapshot.lanes[0].tasks, 0);
  EXPECT_EQ(snapshot.lanes[0].oldest_age, absl::ZeroDuration());
  EXPECT_EQ(snapshot.lanes[0].predicted_wait, absl::ZeroDuration());
  EXPECT_THAT(snapshot.passes, IsEmpty());
  EXPECT_FALSE(snapshot.draining);
}

TEST(ReportTest, ASnapshotShowsWhatWaits) {
  Rig rig(Stepping(), Known());
  rig.SendMany(3, {.length = 10, .tenant = "a"});
  rig.clock.Advance(absl::Milliseconds(7));
  rig.SendMany(2, {.length = 20, .tenant = "b"});
  rig.Send({.length = 5, .lane = Lane::kBulk});
  rig.SendMany(2, {.lane = Lane::kBulk, .ids = Ids(6)});
  const QueueSnapshot snapshot = rig.Snapshot();
  EXPECT_EQ(snapshot.lanes[0].tasks, 5);
  EXPECT_EQ(snapshot.lanes[0].tokens, 70);
  EXPECT_EQ(snapshot.lanes[0].tenants, 2);
  EXPECT_EQ(snapshot.lanes[0].oldest_age, absl::Milliseconds(7));
  // 70 tokens at 100 us, of nine tenths of the device.
  EXPECT_NEAR(absl::ToDoubleMilliseconds(snapshot.lanes[0].predicted_wait), 7.8, 0.3);
  EXPECT_EQ(snapshot.lanes[1].tasks, 3);
  EXPECT_EQ(snapshot.lanes[1].tokens, 11);
  EXPECT_EQ(snapshot.lanes[1].oldest_age, absl::ZeroDuration());
  EXPECT_NEAR(absl::ToDoubleMilliseconds(snapshot.lanes[1].predicted_wait), 8.1, 0.3);
}

TEST(ReportTest, ASnapshotShowsTheTenantsWithTheMostTokens) {
  Rig rig(Stepping(), Known());
  for (int i = 1; i <= 30; ++i) {
    rig.SendMany(2, {.length = i, .lane = Lane::kBulk, .tenant = absl::StrCat("t", i)});
  }
  const QueueSnapshot snapshot = rig.Snapshot();
  EXPECT_THAT(snapshot.lanes[0].largest_tenants, IsEmpty());
  const auto& tenants = snapshot.lanes[1].largest_tenants;
  ASSERT_EQ(tenants.size(), static_cast<size_t>(QueueSnapshot::kTenantsShown));
  for (int i = 0; i < QueueSnapshot::kTenantsShown; ++i) {
    EXPECT_EQ(tenants[static_cast<size_t>(i)].name, absl::StrCat("t", 30 - i));
    EXPECT_EQ(tenants[static_cast<size_t>(i)].sequences, 2);
    EXPECT_EQ(tenants[static_cast<size_t>(i)].tokens, 2 * (30 - i));
  }
}

TEST(ReportTest, ATenantWhoseWorkWasGivenUpIsNotShown) {
  Rig rig(Stepping(), Known());
  rig.Send({.length = 5, .tenant = "there"});
  const auto flag = std::make_shared<CancellationFlag>();
  rig.Send({.length = 10, .tenant = "gone", .cancellation = flag});
  flag->Cancel();
  rig.clock.Advance(absl::Seconds(1));
  rig.RunWhile([&] { return !rig.sent[1].done(); });
  for (const auto& tenant : rig.Snapshot().lanes[0].largest_tenants) {
    EXPECT_NE(tenant.name, "gone");
  }
}

TEST(ReportTest, ASnapshotShowsWhatRuns) {
  Rig rig(Stepping(), Known());
  rig.SendMany(2, {.lane = Lane::kBulk, .ids = Ids(50)});
  rig.Turn();
  rig.Turn();
  rig.Send({.length = 20});
  rig.Turn();
  rig.Turn();
  rig.core.StopAccepting();
  const QueueSnapshot snapshot = rig.Snapshot();
  EXPECT_TRUE(snapshot.draining);
  ASSERT_EQ(snapshot.passes.size(), 2u);
  EXPECT_EQ(snapshot.passes[0].lane, Lane::kInteractive);
  EXPECT_EQ(snapshot.passes[0].tokens, 20);
  const QueueSnapshot::PassState& bulk = snapshot.passes[1];
  EXPECT_EQ(bulk.lane, Lane::kBulk);
  EXPECT_EQ(bulk.tasks, 2);
  EXPECT_EQ(bulk.sequences, 1);
  EXPECT_EQ(bulk.tokens, 50);
  EXPECT_EQ(bulk.age, absl::Milliseconds(2));
  EXPECT_EQ(bulk.device_time, absl::Milliseconds(1));
  EXPECT_NEAR(absl::ToDoubleMilliseconds(bulk.predicted), 5, 0.1);
  EXPECT_EQ(bulk.overtaken, 1);
  EXPECT_EQ(snapshot.running_tasks, 3);
  EXPECT_EQ(snapshot.running_tokens, 70);
  EXPECT_EQ(snapshot.lanes[0].tasks + snapshot.lanes[1].tasks, 0);
}

TEST(ReportTest, WhatIsTriedAgainIsTheOldest) {
  Rig rig({.on_begin = [](const PackedBatch& batch) {
    return batch.num_sequences() == 2 ? absl::InternalError("x") : absl::OkStatus();
  }});
  rig.SendMany(2);
  rig.clock.Advance(absl::Milliseconds(5));
  rig.Turn();
  rig.Send();
  EXPECT_EQ(rig.Snapshot().lanes[0].oldest_age, absl::Milliseconds(5));
  EXPECT_EQ(rig.Snapshot().lanes[0].tasks, 3);
}

TEST(ReportTest, ABatchIsReportedWithItsTimes) {
  Scheduler::Options options = Known();
  options.max_batch_tokens = 500;
  Rig rig(Stepping(), options);
  rig.Send({.length = 50, .lane = Lane::kBulk});
  rig.Turn();
  rig.Turn();
  rig.SendMany(2, {.length = 10});
  rig.RunAll();
  const auto batches = rig.observer.batches();
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_EQ(batches[0].lane, Lane::kInteractive);
  EXPECT_EQ(batches[0].sequences, 2);
  EXPECT_EQ(batches[0].tokens, 20);
  EXPECT_EQ(batches[0].duration, absl::Milliseconds(2));
  EXPECT_EQ(batches[0].overtaken, 0);
  EXPECT_EQ(batches[1].lane, Lane::kBulk);
  EXPECT_EQ(batches[1].token_budget, 500);
  EXPECT_EQ(batches[1].duration, absl::Milliseconds(5));
  EXPECT_NEAR(absl::ToDoubleMilliseconds(batches[1].predicted), 5, 0.1);
  EXPECT_EQ(batches[1].overtaken, 1);
  EXPECT_TRUE(batches[1].ok);
}

TEST(ReportTest, TheFirstPassIsPredictedAsNothingAndTheNextAsTheFirst) {
  Rig rig({.token_us = 100});
  rig.Send();
  rig.RunAll();
  rig.Send();
  rig.RunAll();
  EXPECT_EQ(rig.observer.batches()[0].predicted, absl::ZeroDuration());
  EXPECT_NEAR(absl::ToDoubleMicroseconds(rig.observer.batches()[1].predicted), 1000, 1);
}

TEST(ReportTest, AFailedPassIsReportedAsFailed) {
  Rig rig({.on_step = [](const PackedBatch&, int) { return absl::InternalError("x"); }});
  rig.Send();
  rig.RunAll();
  ASSERT_EQ(rig.observer.batches().size(), 1u);
  EXPECT_FALSE(rig.observer.batches()[0].ok);
  EXPECT_THAT(rig.observer.dropped(), IsEmpty());
}

TEST(ReportTest, EachDropIsReportedByPlaceAndReason) {
  Rig rig(Stepping(), {.max_queued_tasks = 4, .step_budget_us = 1000});
  auto flag = std::make_shared<CancellationFlag>();
  rig.Send({.timeout = absl::ZeroDuration()});
  rig.Send({.length = 50, .timeout = absl::Milliseconds(2)});
  rig.Send({.length = 50, .cancellation = flag});
  rig.Turn();
  rig.Turn();
  rig.Send({.lane = Lane::kBulk, .cancellation = flag});
  flag->Cancel();
  rig.RunAll();
  rig.Send({.timeout = absl::Milliseconds(1)});
  rig.SendMany(3);
  rig.Send();
  rig.clock.Advance(absl::Milliseconds(1));
  rig.Turn();
  rig.core.StopAccepting();
  rig.Send({.lane = Lane::kBulk});
  rig.core.FailWaiting(absl::UnavailableError("x"), rig.now());
  rig.core.FailRunning(absl::UnavailableError("x"), rig.now());
  const Lane query = Lane::kInteractive;
  const Lane bulk = Lane::kBulk;
  EXPECT_THAT(rig.observer.dropped(),
              ElementsAre(Dropped{query, DropPoint::kAdmission, StatusCode::kDeadlineExceeded},
                          Dropped{bulk, DropPoint::kQueue, StatusCode::kCancelled},
                          Dropped{query, DropPoint::kRunning, StatusCode::kCancelled},
                          Dropped{query, DropPoint::kRunning, StatusCode::kDeadlineExceeded},
                          Dropped{query, DropPoint::kAdmission, StatusCode::kResourceExhausted},
                          Dropped{query, DropPoint::kQueue, StatusCode::kDeadlineExceeded},
                          Dropped{bulk, DropPoint::kAdmission, StatusCode::kUnavailable},
                          Dropped{query, DropPoint::kRunning, StatusCode::kUnavailable},
                          Dropped{query, DropPoint::kRunning, StatusCode::kUnavailable},
                          Dropped{query, DropPoint::kRunning, StatusCode::kUnavailable}));
}

TEST(ReportTest, AClockThatIsSetBackMakesNoNegativeTimes) {
  int64_t now = 1'000'000'000'000;
  FakeBackend backend({.on_step = [&](const PackedBatch&, int) {
    now -= 500'000'000;
    return absl::OkStatus();
  }});
  RecordingObserver observer;
  SchedulerCore core({}, backend.info(), &observer);
  absl::Mutex mutex;
  DeviceLoop loop(&core, &mutex, &backend, [&] { return now; });
  TaskResult result{absl::UnknownError(""), {}, {}};
  EmbedTask task;
  task.token_ids = {1};
  task.output.dimensions = 4;
  task.done = [&](TaskResult r) { result = std::move(r); };
  ASSERT_TRUE(core.Submit(std::move(task), now).ok());
  while (loop.Turn()) {
  }
  EXPECT_TRUE(result.vector.ok());
  EXPECT_GE(result.queue_time, absl::ZeroDuration());
  EXPECT_GE(result.compute_time, absl::ZeroDuration());
  EXPECT_GE(observer.batches()[0].duration, absl::ZeroDuration());
}

}  // namespace
}  // namespace quiver
