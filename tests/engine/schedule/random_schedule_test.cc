// Random work on random schedulers over a device that fails at random; what must always hold is
// looked at after every operation.
#include <cstdlib>
#include <random>
#include <set>
#include <stdexcept>

#include "absl/strings/numbers.h"
#include "gtest/gtest.h"
#include "tests/engine/schedule/rig.h"

namespace quiver {
namespace {

using absl::StatusCode;

class RandomSchedule {
 public:
  explicit RandomSchedule(uint64_t seed)
      : random_(seed), apart_(Chance(0.7)), rig_(RandomDevice(), RandomOptions()) {}

  void Play(int operations) {
    for (int i = 0; i < operations && !::testing::Test::HasFatalFailure(); ++i) {
      Step();
      Check();
    }
    rig_.core.StopAccepting();
    if (Chance(0.2)) {
      rig_.core.FailWaiting(absl::UnavailableError("stopped"), rig_.now());
      if (Chance(0.5)) rig_.core.FailRunning(absl::UnavailableError("stopped"), rig_.now());
    }
    rig_.RunAll();
    rig_.Deliver();
    Check();
    EXPECT_TRUE(rig_.core.idle());
    EXPECT_TRUE(rig_.core.quiet());
  }

 private:
  bool Chance(double p) { return std::uniform_real_distribution<double>(0, 1)(random_) < p; }
  int Below(int n) { return static_cast<int>(random_() % static_cast<uint64_t>(n)); }

  FakeBackend::Options RandomDevice() {
    const double failing = Chance(0.5) ? 0.05 : 0;
    FakeBackend::Options device;
    device.max_batch_tokens = 20 + Below(200);
    device.max_sequence_tokens = 1 + Below(device.max_batch_tokens);
    device.max_batch_sequences = 1 + Below(20);
    device.prefix_tokens = Below(2) * Below(100);
    device.max_second_batch_tokens = Below(2) * (1 + Below(device.max_batch_tokens));
    device.fixed_us = Below(3) * 50;
    device.token_us = Below(3) * 10;
    device.token_pair_us = Below(2) * 0.5;
    device.step_us = Below(2) * 100;
    device.on_begin = [this, failing](const PackedBatch& batch) {
      ExpectWanted(batch);
      return Chance(failing) ? absl::InternalError("random") : absl::OkStatus();
    };
    device.on_step = [this, failing](const PackedBatch&, int) {
      if (Chance(failing / 2)) throw std::runtime_error("random");
      return Chance(failing / 2) ? absl::InternalError("random") : absl::OkStatus();
    };
    device.on_sequence = [this, failing](absl::Span<const TokenId>) {
      return Chance(failing) ? absl::InternalError("random") : absl::OkStatus();
    };
    longest_ = device.max_sequence_tokens;
    return device;
  }

  Scheduler::Options RandomOptions() {
    options_.max_queued_tokens = 1 + Below(3000);
    options_.max_queued_tasks = 1 + Below(100);
    options_.max_batch_tokens = Below(2) * (1 + Below(200));
    options_.interactive_batch_time = absl::Microseconds(Below(5000));
    options_.bulk_batch_time = absl::Microseconds(Below(50'000));
    options_.bulk_share = Below(11) / 10.0;
    options_.step_budget_us = 1 + Below(500);
    return options_;
  }

  void Step() {
    const int what = Below(100);
    if (what < 45) {
      Wish wish;
      wish.length = 1 + Below(longest_);
      wish.lane = Chance(0.5) ? Lane::kInteractive : Lane::kBulk;
      wish.tenant = std::string(1, static_cast<char>('a' + Below(4)));
      if (Chance(0.4)) wish.timeout = absl::Microseconds(Below(20'000));
      if (Chance(0.4)) {
        if (flags_.empty() || Chance(0.5)) flags_.push_back(std::make_shared<CancellationFlag>());
        wish.cancellation = flags_.back();
      }
      if (Chance(0.3)) {
        wish.ids = Ids(1 + Below(std::min(longest_, 3)), 1 + Below(3));
      } else if (Chance(0.4)) {
        // One of three beginnings, in whole or in part.
        const int shared = std::min(longest_, 8 + Below(20));
        wish.ids = Ids(shared, 100 + Below(3));
        for (int more = Below(longest_ - shared + 1); more > 0; --more) {
          wish.ids.push_back(1 + Below(5));
        }
      }
      wishes_.push_back(wish);
      rig_.Send(wish);
    } else if (what < 90) {
      const bool quiet = rig_.core.quiet();
      const bool worked = rig_.Step();
      EXPECT_FALSE(quiet && worked);
      // What waited may all have been given up; else there is always something to do.
      EXPECT_TRUE(worked || rig_.core.quiet());
      if (!apart_ || Chance(0.3)) rig_.Deliver();
      if (apart_ && Chance(0.3)) rig_.Prepare();
    } else if (what < 95) {
      rig_.clock.Advance(absl::Microseconds(Below(3000)));
    } else if (what < 99) {
      if (!flags_.empty())
        flags_[static_cast<size_t>(Below(static_cast<int>(flags_.size())))]->Cancel();
    } else if (Chance(0.3)) {
      rig_.core.FailWaiting(absl::UnavailableError("stopped"), rig_.now());
      if (Chance(0.5)) rig_.core.FailRunning(absl::UnavailableError("stopped"), rig_.now());
      rig_.Deliver();
    }
  }

  // Nothing is computed that nobody waits for any more.
  void ExpectWanted(const PackedBatch& batch) {
    std::set<std::vector<TokenId>> wanted;
    for (size_t i = 0; i < rig_.sent.size(); ++i) {
      const Sent& task = rig_.sent[i];
      const Wish& wish = wishes_[i];
      if (!task.submitted.ok() || task.done() || rig_.clock.Now() >= task.at + wish.timeout ||
          (wish.cancellation != nullptr && wish.cancellation->cancelled())) {
        continue;
      }
      wanted.insert(task.ids);
    }
    for (int s = 0; s < batch.num_sequences(); ++s) {
      const std::vector<TokenId> ids = rig_.backend.Ids(batch, s);
      EXPECT_TRUE(wanted.contains(ids)) << "a sequence of " << ids.size() << " tokens";
    }
  }

  void Check() {
    int64_t open = 0;
    for (const Sent& task : rig_.sent) {
      ASSERT_LE(task.times_done, task.submitted.ok() ? 1 : 0);
      open += task.submitted.ok() && !task.done();
      if (!task.done()) continue;
      switch (task.code()) {
        case StatusCode::kOk:
        case StatusCode::kInternal:
        case StatusCode::kCancelled:
        case StatusCode::kDeadlineExceeded:
        case StatusCode::kUnavailable:
          break;
        default:
          // FAILED_PRECONDITION is the device's word for a broken batch.
          FAIL() << task.result->vector.status();
      }
    }
    const QueueSnapshot snapshot = rig_.Snapshot();
    int64_t shown = snapshot.running_tasks;
    for (const QueueSnapshot::LaneState& lane : snapshot.lanes) {
      shown += lane.tasks;
      ASSERT_EQ(lane.tasks == 0, lane.tokens == 0);
      ASSERT_LE(lane.tokens, std::max<int64_t>(longest_, options_.max_queued_tokens * 5 / 4) +
                                 2 * rig_.backend.info().max_batch_tokens);
      ASSERT_GE(lane.oldest_age, absl::ZeroDuration());
      ASSERT_GE(lane.predicted_wait, absl::ZeroDuration());
    }
    // What has been decided and not delivered is nowhere.
    ASSERT_LE(shown, open);
    if (!rig_.core.has_completions()) {
      ASSERT_EQ(shown, open);
    }
    ASSERT_LE(snapshot.passes.size(), 2u);
    ASSERT_EQ(open == 0, rig_.core.idle());
  }

  std::mt19937_64 random_;
  // Whether answers and preparations come when they will, as from threads of their own.
  const bool apart_;
  int longest_ = 0;
  Scheduler::Options options_;
  std::vector<std::shared_ptr<CancellationFlag>> flags_;
  // Of rig_.sent.
  std::vector<Wish> wishes_;
  Rig rig_;
};

// QUIVER_TEST_SEED runs one of them again, QUIVER_TEST_ROUNDS so many of them.
void PlayMany(int rounds, int operations) {
  uint64_t seed = 20'240'601;
  const char* given = std::getenv("QUIVER_TEST_SEED");
  if (given != nullptr && absl::SimpleAtoi(given, &seed)) rounds = 1;
  given = std::getenv("QUIVER_TEST_ROUNDS");
  if (given != nullptr) {
    ASSERT_TRUE(absl::SimpleAtoi(given, &rounds));
  }
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE(::testing::Message()
                 << "QUIVER_TEST_SEED=" << seed + static_cast<uint64_t>(round));
    RandomSchedule(seed + static_cast<uint64_t>(round)).Play(operations);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(RandomScheduleTest, EveryTaskIsAnsweredOnceUnderRandomSchedules) { PlayMany(1000, 150); }

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr int kShortRounds = 5000;
#else
constexpr int kShortRounds = 100'000;
#endif

TEST(RandomScheduleTest, EveryTaskIsAnsweredOnceUnderManyShortSchedules) {
  PlayMany(kShortRounds, 30);
}

}  // namespace
}  // namespace quiver
