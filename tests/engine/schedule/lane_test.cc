#include <algorithm>
#include <map>
#include <random>

#include "gtest/gtest.h"
#include "tests/engine/schedule/rig.h"

namespace quiver {
namespace {

using absl::StatusCode;

// 1 us a token, in steps of 1 ms.
constexpr int kStepUs = 1000;
FakeBackend::Options Device() {
  return {.max_batch_tokens = 16'384, .token_us = 1, .step_us = kStepUs};
}
Scheduler::Options Options(double bulk_share = 0.1) {
  return {.bulk_share = bulk_share, .step_budget_us = kStepUs, .cost_model = LearnedCost(0, 1)};
}

TEST(LaneTest, AQueryOvertakesBulkBetweenTwoOfItsSteps) {
  Rig rig(Device(), Options());
  Sent& bulk = rig.Send({.length = 8000, .lane = Lane::kBulk});
  rig.Turn();
  rig.Turn();
  Sent& query = rig.Send({.length = 100});
  rig.RunAll();
  EXPECT_LT(query.rank, bulk.rank);
  EXPECT_EQ(query.done_at - query.at, absl::Microseconds(100));
  EXPECT_EQ(bulk.done_at - bulk.at, absl::Microseconds(8100));
}

// A device whose second pass is a small one.
FakeBackend::Options NarrowDevice() {
  FakeBackend::Options device = Device();
  device.max_second_batch_tokens = 500;
  return device;
}

TEST(LaneTest, ABatchBesideAnotherPassKeepsToTheSecondPassesTokens) {
  Rig rig(NarrowDevice(), Options());
  rig.Send({.length = 8000, .lane = Lane::kBulk});
  rig.Turn();
  rig.Turn();
  const std::vector<Sent*> queries = rig.SendMany(9, {.length = 100});
  rig.RunAll();
  const std::vector<FakeBackend::PassRecord> passes = rig.backend.Passes();
  ASSERT_EQ(passes.size(), 3u);
  EXPECT_EQ(passes[1].tokens, 500);
  EXPECT_EQ(passes[2].tokens, 400);
  for (const Sent* query : queries) EXPECT_LT(query->rank, 9);
}

TEST(LaneTest, AQueryTooLongForTheSecondPassWaitsForTheFirstToEnd) {
  Rig rig(NarrowDevice(), Options());
  Sent& bulk = rig.Send({.length = 8000, .lane = Lane::kBulk});
  rig.Turn();
  rig.Turn();
  Sent& query = rig.Send({.length = 501});
  Sent& later = rig.Send({.length = 3000, .lane = Lane::kBulk});
  rig.RunAll();
  EXPECT_LT(bulk.rank, query.rank);
  EXPECT_LT(query.rank, later.rank);
  EXPECT_EQ(query.code(), absl::StatusCode::kOk);
}

// Keeps `lane` supplied with tasks of `length`, as a client that sends the next when one is done.
void Supply(Rig& rig, const Wish& wish, int ahead) {
  const int waiting = static_cast<int>(rig.Snapshot().lanes[static_cast<int>(wish.lane)].tasks);
  if (waiting < ahead) rig.SendMany(ahead - waiting, wish);
}

// Device time of the bulk lane, in parts of all, over `for_us` with both lanes saturated.
double MeasuredBulkShare(double share, int query_tokens, int64_t for_us) {
  Rig rig(Device(), Options(share));
  const absl::Time start = rig.clock.Now();
  while (rig.clock.Now() - start < absl::Microseconds(for_us)) {
    Supply(rig, {.length = query_tokens}, 50);
    Supply(rig, {.length = 2000, .lane = Lane::kBulk}, 20);
    rig.Turn();
  }
  double bulk = 0;
  double all = 0;
  for (const BatchReport& batch : rig.observer.batches()) {
    all += absl::ToDoubleMicroseconds(batch.duration);
    if (batch.lane == Lane::kBulk) bulk += absl::ToDoubleMicroseconds(batch.duration);
  }
  for (const QueueSnapshot::PassState& pass : rig.Snapshot().passes) {
    all += absl::ToDoubleMicroseconds(pass.device_time);
    if (pass.lane == Lane::kBulk) bulk += absl::ToDoubleMicroseconds(pass.device_time);
  }
  return bulk / all;
}

TEST(LaneTest, BulkKeepsItsShareUnderSaturatingQueries) {
  for (const double share : {0.05, 0.1, 0.25, 0.5}) {
    EXPECT_NEAR(MeasuredBulkShare(share, 100, 20'000'000), share, 0.01);
    // Of queries that are long passes themselves.
    EXPECT_NEAR(MeasuredBulkShare(share, 4000, 20'000'000), share, 0.02);
  }
}

TEST(LaneTest, SharesOfNothingAndOfAllAreTakenAtTheirWord) {
  EXPECT_EQ(MeasuredBulkShare(0, 100, 2'000'000), 0);
  EXPECT_EQ(MeasuredBulkShare(1, 100, 2'000'000), 1);
}

TEST(LaneTest, AnIdleLanesShareGoesToTheOther) {
  for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
    Rig rig(Device(), Options());
    rig.SendMany(100, {.length = 1000, .lane = lane});
    const absl::Time start = rig.clock.Now();
    rig.RunAll();
    EXPECT_EQ(rig.clock.Now() - start, absl::Microseconds(100'000));
  }
}

TEST(LaneTest, AQueryAfterBulkRanAloneDoesNotPayForWhatBulkMissedBefore) {
  Rig rig(Device(), Options());
  rig.SendMany(2, {.length = 16'000 / 2, .lane = Lane::kBulk});
  rig.Turn();
  rig.Turn();
  // Earns bulk a credit of 3.5 ms.
  Sent& busy = rig.Send({.length = 8000, .timeout = absl::Seconds(1)});
  rig.SendMany(3, {.length = 8000, .timeout = absl::Seconds(2)});
  rig.RunWhile([&] { return !busy.done(); });
  rig.RunWhile([&] { return rig.Snapshot().lanes[0].tasks > 0; });
  rig.RunWhile([&] { return !rig.sent[5].done(); });
  for (int i = 0; i < 6; ++i) rig.Turn();
  Sent& query = rig.Send({.length = 100});
  rig.RunWhile([&] { return !query.done(); });
  EXPECT_LE(query.done_at - query.at, absl::Microseconds(1100));
}

TEST(LaneTest, QueriesStayQuickWhileBulkSaturatesTheDevice) {
  Rig rig(Device(), Options());
  std::mt19937 random(8);
  std::exponential_distribution<double> gap(1.0 / 20'000);
  absl::Time next = rig.clock.Now();
  const absl::Time end = next + absl::Seconds(60);
  std::vector<Sent*> queries;
  while (rig.clock.Now() < end) {
    Supply(rig, {.length = 512, .lane = Lane::kBulk}, 100);
    while (next <= rig.clock.Now()) {
      queries.push_back(&rig.Send({.length = 32}));
      next += absl::Microseconds(gap(random));
    }
    rig.Turn();
  }
  rig.RunWhile([&] { return !queries.back()->done(); });
  std::vector<absl::Duration> times;
  for (Sent* query : queries) times.push_back(query->done_at - query->at);
  std::sort(times.begin(), times.end());
  // A query sent during a step waits for its end, is computed, and at times lets bulk's share pass.
  EXPECT_LE(times[times.size() * 95 / 100], absl::Milliseconds(2.2));
  EXPECT_LE(times.back(), absl::Milliseconds(5));
}

TEST(LaneTest, AShortQueryOvertakesALongOne) {
  Scheduler::Options options = Options();
  options.interactive_batch_time = absl::Milliseconds(2);
  Rig rig(Device(), options);
  Sent& document = rig.Send({.length = 8192, .tenant = "a"});
  rig.Send({.length = 8192, .tenant = "a"});
  for (int i = 0; i < 3; ++i) rig.Turn();
  ASSERT_FALSE(document.done());
  Sent& query = rig.Send({.length = 100, .tenant = "b"});
  rig.RunWhile([&] { return !query.done(); });
  EXPECT_LE(query.done_at - query.at, absl::Milliseconds(2.2));
}

TEST(LaneTest, ALongQueryAmongShortOnesGetsHalfTheDevice) {
  Scheduler::Options options = Options();
  options.interactive_batch_time = absl::Milliseconds(2);
  Rig rig(Device(), options);
  Sent& document = rig.Send({.length = 8000});
  rig.Turn();
  rig.Turn();
  while (!document.done()) {
    Supply(rig, {.length = 100, .tenant = "b"}, 50);
    rig.Turn();
  }
  EXPECT_LE(document.done_at - document.at, absl::Milliseconds(19));
}

TEST(LaneTest, WithinATenantTheEarliestDeadlineGoesFirst) {
  FakeBackend::Options device = Device();
  device.max_batch_sequences = 1;
  for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
    Rig rig(device, Options());
    std::mt19937 random(9);
    std::map<absl::Duration, Sent*> by_deadline;
    for (int i = 0; i < 200; ++i) {
      const absl::Duration timeout = absl::Milliseconds(1000 + random() % 100'000);
      by_deadline[timeout] = &rig.Send({.lane = lane, .timeout = timeout});
    }
    // Without a deadline, as if due in ten seconds.
    by_deadline[Scheduler::kPatience] = &rig.Send({.lane = lane});
    rig.RunAll();
    int last = -1;
    for (const auto& [timeout, task] : by_deadline) {
      EXPECT_GT(task->rank, last) << timeout;
      last = task->rank;
    }
  }
}

TEST(LaneTest, ATenantOfThreeIsNotBehindOneOfTenThousand) {
  Rig rig(Device(), Options());
  rig.SendMany(10'000, {.length = 100, .tenant = "big"});
  rig.Turn();
  rig.Turn();
  auto few = rig.SendMany(3, {.length = 100, .tenant = "small"});
  rig.RunWhile([&] { return !few[2]->done(); });
  // The pass under way and the one they are in.
  EXPECT_LE(few[2]->done_at - few[2]->at, absl::Milliseconds(40));
}

TEST(LaneTest, TenantsGetEqualPartsByTokens) {
  for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
    Rig rig(Device(), Options());
    const std::map<std::string, int> lengths = {{"a", 10}, {"b", 100}, {"c", 1000}, {"d", 333}};
    std::map<std::string, std::vector<Sent*>> sent;
    for (const auto& [tenant, length] : lengths) {
      sent[tenant] =
          rig.SendMany(500'000 / length, {.length = length, .lane = lane, .tenant = tenant});
    }
    const absl::Time start = rig.clock.Now();
    rig.RunWhile([&] { return rig.clock.Now() - start < absl::Seconds(1); });
    for (const auto& [tenant, tasks] : sent) {
      const auto done =
          std::count_if(tasks.begin(), tasks.end(), [](Sent* t) { return t->done(); });
      EXPECT_NEAR(static_cast<double>(done) * lengths.at(tenant), 250'000, 12'500) << tenant;
    }
  }
}

TEST(LaneTest, ATenantThatComesBackHasNothingSavedUp) {
  Rig rig(Device(), Options());
  rig.Send({.length = 100, .tenant = "b"});
  rig.RunAll();
  rig.SendMany(1000, {.length = 1000, .tenant = "a"});
  rig.RunWhile([&] { return rig.backend.TokensRun() < 500'000; });
  auto back = rig.SendMany(400, {.length = 1000, .tenant = "b"});
  const int before = static_cast<int>(
      std::count_if(rig.sent.begin(), rig.sent.end(), [](const Sent& t) { return t.done(); }));
  rig.RunWhile([&] { return rig.backend.TokensRun() < 700'000; });
  const auto of_b =
      std::count_if(back.begin(), back.end(), [](const Sent* t) { return t->done(); });
  const auto all =
      std::count_if(rig.sent.begin(), rig.sent.end(), [](const Sent& t) { return t.done(); });
  EXPECT_NEAR(static_cast<double>(of_b) / static_cast<double>(all - before), 0.5, 0.06);
}

TEST(LaneTest, NobodyStarvesWhateverTheOthersSend) {
  Rig rig(Device(), Options());
  // Long and patient, among a flood of short and urgent ones of its own tenant and of others.
  Sent& query = rig.Send({.length = 8000, .tenant = "a"});
  Sent& bulk = rig.Send({.length = 8000, .lane = Lane::kBulk, .tenant = "a"});
  const absl::Time start = rig.clock.Now();
  while (!(query.done() && bulk.done()) && rig.clock.Now() - start < absl::Seconds(60)) {
    for (const Lane lane : {Lane::kInteractive, Lane::kBulk}) {
      for (const char* tenant : {"a", "b", "c"}) {
        if (rig.Snapshot().lanes[static_cast<int>(lane)].tasks < 200) {
          rig.SendMany(10, {.length = 500, .lane = lane, .tenant = tenant});
        }
      }
    }
    rig.Turn();
  }
  EXPECT_EQ(query.code(), StatusCode::kOk);
  EXPECT_EQ(bulk.code(), StatusCode::kOk);
  EXPECT_LE(query.done_at - query.at, absl::Seconds(15));
  EXPECT_LE(bulk.done_at - bulk.at, absl::Seconds(30));
}

}  // namespace
}  // namespace quiver
