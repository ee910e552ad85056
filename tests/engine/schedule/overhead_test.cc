// What the scheduler itself costs, with a device that takes no time. Prints its figures.
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "engine/schedule/device_loop.h"
#include "engine/schedule/scheduler_core.h"
#include "gtest/gtest.h"

namespace quiver {
namespace {

// Gives empty vectors at once.
class FreeBackend : public Backend {
 public:
  FreeBackend() {
    info_.max_batch_tokens = 16'384;
    info_.max_sequence_tokens = 8192;
    info_.max_batch_sequences = 1024;
  }
  const BackendInfo& info() const override { return info_; }
  absl::StatusOr<std::unique_ptr<Pass>> Begin(PackedBatch batch) override {
    return std::make_unique<FreePass>(batch.outputs.size());
  }

 private:
  class FreePass : public Pass {
   public:
    explicit FreePass(size_t n) : n_(n) {}
    absl::StatusOr<bool> Run(int64_t) override { return true; }
    std::vector<absl::StatusOr<EncodedVector>> Finish() override {
      return std::vector<absl::StatusOr<EncodedVector>>(n_, EncodedVector());
    }

   private:
    const size_t n_;
  };
  BackendInfo info_;
};

// CPU time, as the machine may be shared.
double Seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Tasks of 32 ids a second, submitted and answered while `queued` others wait.
double TasksPerSecond(int queued, bool random_deadlines) {
  FreeBackend backend;
  Scheduler::Options options;
  options.max_queued_tasks = 1'000'000;
  options.max_queued_tokens = 100'000'000;
  SchedulerCore core(options, backend.info(), nullptr);
  absl::Mutex mutex;
  int64_t now = 1'000'000'000'000'000;
  DeviceLoop loop(&core, &mutex, &backend, [&] { return now; });
  std::mt19937 random(1);
  int64_t done = 0;
  TokenId next = 0;
  const auto submit = [&] {
    EmbedTask task;
    task.token_ids.assign(32, 7);
    task.token_ids[0] = next++;
    task.output.dimensions = 4;
    if (random_deadlines) {
      task.deadline = absl::FromUnixNanos(now + 3'600'000'000'000 + random() % 1'000'000'000);
    }
    task.done = [&done](TaskResult) { ++done; };
    absl::MutexLock lock(&mutex);
    EXPECT_TRUE(core.Submit(std::move(task), now).ok());
  };
  for (int i = 0; i < queued; ++i) submit();
  constexpr int kTasks = 300'000;
  constexpr int kBatch = 500;
  const double start = Seconds();
  for (int i = 0; i < kTasks; i += kBatch) {
    for (int j = 0; j < kBatch; ++j) submit();
    const int64_t target = done + kBatch;
    now += 1'000'000;
    while (done < target && loop.Turn()) {
    }
  }
  const double rate = static_cast<double>(done) / (Seconds() - start);
  while (loop.Turn()) {
  }
  EXPECT_EQ(done, kTasks + queued);
  return rate;
}

TEST(OverheadTest, ATaskCostsLittleHoweverManyWait) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "a sanitizer's time says nothing";
#endif
  for (const bool random_deadlines : {false, true}) {
    const double few = TasksPerSecond(1000, random_deadlines);
    const double many = TasksPerSecond(100'000, random_deadlines);
    std::printf("deadlines %s: %.0f tasks/s with 1,000 queued, %.0f with 100,000 queued\n",
                random_deadlines ? "random" : "none", few, many);
    // A queue looked through for each task would be a hundred times slower.
    EXPECT_GT(many, few / 10);
  }
}

}  // namespace
}  // namespace quiver
