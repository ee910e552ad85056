// The scheduler with its own thread, over a device that takes no time or is held by the test.
#include "engine/schedule/scheduler.h"

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/engine/schedule/rig.h"

namespace quiver {
namespace {

using absl::StatusCode;

// Counts answers by their code.
class Answers {
 public:
  EmbedTask Task(std::vector<TokenId> ids) {
    EmbedTask task;
    task.token_ids = std::move(ids);
    task.output.dimensions = 4;
    task.done = [this](TaskResult result) {
      absl::MutexLock lock(&mutex_);
      ++count_;
      ++codes_[static_cast<int>(result.vector.status().code())];
    };
    return task;
  }
  void AwaitCount(int n) {
    absl::MutexLock lock(&mutex_);
    const auto reached = [&] {
      mutex_.AssertReaderHeld();
      return count_ >= n;
    };
    mutex_.Await(absl::Condition(&reached));
  }
  int count() const {
    absl::MutexLock lock(&mutex_);
    return count_;
  }
  int Of(StatusCode code) const {
    absl::MutexLock lock(&mutex_);
    return codes_[static_cast<int>(code)];
  }

 private:
  mutable absl::Mutex mutex_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
  int codes_[20] ABSL_GUARDED_BY(mutex_) = {};
};

// A device whose first step waits until it is let go.
class HeldDevice {
 public:
  explicit HeldDevice(absl::Duration longest_call = absl::InfiniteDuration())
      : backend({.max_batch_tokens = 10,
                 .max_sequence_tokens = 10,
                 .longest_call = longest_call,
                 .on_step = [this](const PackedBatch&, int) {
                   if (!reached.HasBeenNotified()) reached.Notify();
                   go.WaitForNotification();
                   return absl::OkStatus();
                 }}) {}
  absl::Notification reached;
  absl::Notification go;
  FakeBackend backend;
};

std::unique_ptr<Scheduler> Make(Backend* backend, Scheduler::Options options = {},
                                SchedulerObserver* observer = nullptr) {
  return *Scheduler::Create(std::move(options), backend, observer);
}

TEST(SchedulerTest, ATaskComesBack) {
  FakeBackend backend({});
  auto scheduler = Make(&backend);
  Answers answers;
  ASSERT_TRUE(scheduler->Submit(answers.Task(Ids(10))).ok());
  answers.AwaitCount(1);
  EXPECT_EQ(answers.Of(StatusCode::kOk), 1);
}

TEST(SchedulerTest, DrainFinishesWhatWasTakenAndTakesNoMore) {
  FakeBackend backend({});
  auto scheduler = Make(&backend);
  Answers answers;
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(scheduler->Submit(answers.Task(Ids(10, i))).ok());
  EXPECT_TRUE(scheduler->Drain(absl::InfiniteFuture()));
  EXPECT_EQ(answers.Of(StatusCode::kOk), 1000);
  EXPECT_EQ(scheduler->Submit(answers.Task(Ids(10))).code(), StatusCode::kUnavailable);
  EXPECT_TRUE(scheduler->Snapshot().draining);
  EXPECT_TRUE(scheduler->Drain(absl::InfinitePast()));
}

TEST(SchedulerTest, DrainFailsWhatIsLeftAtItsDeadlineEvenIfTheDeviceHangs) {
  HeldDevice device;
  auto scheduler = Make(&device.backend);
  Answers answers;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(scheduler->Submit(answers.Task(Ids(10, i))).ok());
  device.reached.WaitForNotification();
  EXPECT_FALSE(scheduler->Drain(absl::Now() + absl::Milliseconds(5)));
  EXPECT_EQ(answers.Of(StatusCode::kUnavailable), 5);
  device.go.Notify();
  scheduler.reset();
  EXPECT_EQ(answers.count(), 5);
}

TEST(SchedulerTest, APatientDrainReturnsWhenAnotherHasFailedEverything) {
  HeldDevice device;
  auto scheduler = Make(&device.backend);
  Answers answers;
  ASSERT_TRUE(scheduler->Submit(answers.Task(Ids(10))).ok());
  device.reached.WaitForNotification();
  std::thread patient([&] { EXPECT_TRUE(scheduler->Drain(absl::InfiniteFuture())); });
  // Until it waits; were the second to come first, the first would find nothing to wait for.
  while (!scheduler->Snapshot().draining) std::this_thread::yield();
  EXPECT_FALSE(scheduler->Drain(absl::Now()));
  patient.join();
  device.go.Notify();
}

TEST(SchedulerTest, TheDestructorFailsWhatWaitsAndLetsWhatRunsEnd) {
  HeldDevice device;
  auto scheduler = Make(&device.backend);
  Answers answers;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(scheduler->Submit(answers.Task(Ids(10, i))).ok());
  device.reached.WaitForNotification();
  std::thread destroyer([&] { scheduler.reset(); });
  answers.AwaitCount(4);
  EXPECT_EQ(answers.Of(StatusCode::kUnavailable), 4);
  device.go.Notify();
  destroyer.join();
  EXPECT_EQ(answers.Of(StatusCode::kOk), 1);
}

TEST(SchedulerTest, ALostDeviceIsToldOnceAndDrainsAtOnce) {
  absl::Notification lost;
  std::atomic<int> passes{0};
  const auto state = [&] { return passes < 3 ? absl::OkStatus() : absl::InternalError("gone"); };
  FakeBackend backend({.max_batch_tokens = 20,
                       .max_sequence_tokens = 20,
                       .on_step = [&](const PackedBatch&, int) { return ++passes, state(); },
                       .on_check_device = state});
  // A second call would end the test.
  auto scheduler = Make(&backend, {.on_device_lost = [&](const absl::Status&) { lost.Notify(); }});
  Answers answers;
  int accepted = 0;
  for (int i = 0; i < 10; ++i) accepted += scheduler->Submit(answers.Task(Ids(10, i))).ok();
  lost.WaitForNotification();
  answers.AwaitCount(accepted);
  EXPECT_GT(answers.Of(StatusCode::kUnavailable), 0);
  EXPECT_EQ(answers.Of(StatusCode::kOk) + answers.Of(StatusCode::kUnavailable), accepted);
  EXPECT_EQ(scheduler->Submit(answers.Task(Ids(10))).code(), StatusCode::kUnavailable);
  EXPECT_TRUE(scheduler->Drain(absl::InfiniteFuture()));
}

TEST(SchedulerTest, ADeviceThatHangsIsLost) {
  HeldDevice device(absl::Milliseconds(50));
  absl::Notification lost;
  auto scheduler = Make(&device.backend, {.on_device_lost = [&](const absl::Status& why) {
    EXPECT_EQ(why.message(), "the device is lost: a call has not come back for 50ms");
    lost.Notify();
  }});
  Answers answers;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(scheduler->Submit(answers.Task(Ids(10, i))).ok());
  lost.WaitForNotification();
  answers.AwaitCount(5);
  EXPECT_EQ(answers.Of(StatusCode::kUnavailable), 5);
  EXPECT_EQ(scheduler->Submit(answers.Task(Ids(10))).code(), StatusCode::kUnavailable);
  EXPECT_TRUE(scheduler->Drain(absl::InfiniteFuture()));
  device.go.Notify();
}

TEST(SchedulerTest, ADeviceThatIsBusyForLongIsNotLost) {
  std::atomic<bool> lost{false};
  FakeBackend backend({.max_batch_tokens = 10,
                       .max_sequence_tokens = 10,
                       .longest_call = absl::Milliseconds(200),
                       .fixed_us = 20'000});
  auto scheduler = Make(&backend, {.on_device_lost = [&](const absl::Status&) { lost = true; }});
  Answers answers;
  for (int i = 0; i < 30; ++i) ASSERT_TRUE(scheduler->Submit(answers.Task(Ids(10, i))).ok());
  EXPECT_TRUE(scheduler->Drain(absl::InfiniteFuture()));
  EXPECT_EQ(answers.Of(StatusCode::kOk), 30);
  EXPECT_FALSE(lost);
}

TEST(SchedulerTest, ACompletionThatTakesLongDoesNotHoldUpTheDevice) {
  absl::Notification second_runs;
  int passes = 0;
  FakeBackend backend(
      {.max_batch_tokens = 10, .max_sequence_tokens = 10, .on_step = [&](const PackedBatch&, int) {
         if (++passes == 2) second_runs.Notify();
         return absl::OkStatus();
       }});
  auto scheduler = Make(&backend);
  Answers answers;
  EmbedTask slow;
  slow.token_ids = Ids(10);
  slow.output.dimensions = 4;
  slow.done = [&](TaskResult) { second_runs.WaitForNotification(); };
  ASSERT_TRUE(scheduler->Submit(std::move(slow)).ok());
  ASSERT_TRUE(scheduler->Submit(answers.Task(Ids(10, 2))).ok());
  answers.AwaitCount(1);
  EXPECT_EQ(answers.Of(StatusCode::kOk), 1);
}

TEST(SchedulerTest, ManyTasksAreTakenOrRefusedEachForItself) {
  HeldDevice device;
  auto scheduler = Make(&device.backend, {.max_queued_tasks = 100});
  Answers answers;
  ASSERT_TRUE(scheduler->Submit(answers.Task(Ids(10))).ok());
  device.reached.WaitForNotification();
  std::vector<EmbedTask> tasks;
  for (int i = 0; i < 200; ++i) tasks.push_back(answers.Task(Ids(10, i + 2)));
  tasks[7].token_ids.clear();
  const std::vector<absl::Status> statuses = scheduler->SubmitMany(absl::MakeSpan(tasks));
  ASSERT_EQ(statuses.size(), 200u);
  EXPECT_EQ(statuses[7].code(), StatusCode::kInvalidArgument);
  int taken = 0;
  for (size_t i = 0; i < statuses.size(); ++i) {
    taken += statuses[i].ok();
    if (absl::IsResourceExhausted(statuses[i])) {
      EXPECT_EQ(tasks[i].token_ids.size(), 10u);
    }
  }
  // One more if the next batch, of one task, was prepared meanwhile.
  EXPECT_GE(taken, 100);
  EXPECT_LE(taken, 101);
  device.go.Notify();
  answers.AwaitCount(1 + taken);
}

TEST(SchedulerTest, WrongOptionsAreRefused) {
  FakeBackend backend({});
  const auto code = [&](Scheduler::Options options) {
    return Scheduler::Create(std::move(options), &backend, nullptr).status().code();
  };
  EXPECT_EQ(code({.max_queued_tokens = 0}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.max_queued_tasks = 0}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.max_batch_tokens = -1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.bulk_share = -0.1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.bulk_share = 1.1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.bulk_share = 0.0 / 0.0}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.step_budget_us = 0}), StatusCode::kInvalidArgument);
  FakeBackend none({.max_batch_tokens = 0, .max_sequence_tokens = 0});
  EXPECT_EQ(Scheduler::Create({}, &none, nullptr).status().code(), StatusCode::kInvalidArgument);
}

TEST(SchedulerTest, SixtyFourProducersGetEachAnswerOnce) {
  std::atomic<uint32_t> calls{0};
  FakeBackend backend({.max_batch_tokens = 500,
                       .max_sequence_tokens = 120,
                       .prefix_tokens = 40,
                       .on_step =
                           [&](const PackedBatch&, int) {
                             return ++calls % 50 == 0 ? absl::InternalError("x") : absl::OkStatus();
                           },
                       .on_sequence =
                           [](absl::Span<const TokenId> ids) {
                             return ids[0] % 97 == 0 ? absl::InternalError("x") : absl::OkStatus();
                           }});
  RecordingObserver observer;
  auto scheduler = Make(&backend, {.max_queued_tasks = 500}, &observer);
  Answers answers;
  std::atomic<int> accepted{0};
  std::vector<std::thread> producers;
  for (int p = 0; p < 64; ++p) {
    producers.emplace_back([&, p] {
      std::mt19937 random(static_cast<uint32_t>(p));
      for (int i = 0; i < 200; ++i) {
        std::vector<TokenId> ids =
            Ids(1 + static_cast<int>(random() % 100), static_cast<TokenId>(random() % 1000));
        // Some begin alike.
        if (random() % 2 == 0) ids.insert(ids.begin(), 20, static_cast<TokenId>(random() % 3));
        EmbedTask task = answers.Task(std::move(ids));
        task.lane = random() % 2 == 0 ? Lane::kInteractive : Lane::kBulk;
        task.tenant = std::string(1, static_cast<char>('a' + p % 5));
        std::shared_ptr<CancellationFlag> flag;
        if (random() % 3 == 0) task.cancellation = flag = std::make_shared<CancellationFlag>();
        if (random() % 3 == 0) task.deadline = absl::Now() + absl::Microseconds(random() % 20'000);
        accepted += scheduler->Submit(std::move(task)).ok();
        if (flag != nullptr) flag->Cancel();
        if (i % 20 == 0) scheduler->Snapshot();
      }
    });
  }
  for (std::thread& producer : producers) producer.join();
  EXPECT_TRUE(scheduler->Drain(absl::InfiniteFuture()));
  scheduler.reset();
  EXPECT_EQ(answers.count(), accepted);
  EXPECT_GT(answers.Of(StatusCode::kOk), 0);
}

TEST(SchedulerTest, DrainAndDestructionRaceWithProducers) {
  for (int round = 0; round < 10; ++round) {
    FakeBackend backend({.max_batch_tokens = 50, .max_sequence_tokens = 50});
    auto scheduler = Make(&backend);
    Answers answers;
    std::atomic<int> accepted{0};
    std::vector<std::thread> producers;
    for (int p = 0; p < 4; ++p) {
      producers.emplace_back([&, p] {
        for (int i = 0;; ++i) {
          const absl::Status s = scheduler->Submit(answers.Task(Ids(10, p * 100'000 + i)));
          if (absl::IsUnavailable(s)) return;
          accepted += s.ok();
        }
      });
    }
    while (answers.count() < 10) std::this_thread::yield();
    scheduler->Drain(round % 2 == 0 ? absl::Now() : absl::Now() + absl::Milliseconds(2));
    for (std::thread& producer : producers) producer.join();
    scheduler.reset();
    EXPECT_EQ(answers.count(), accepted);
  }
}

}  // namespace
}  // namespace quiver
