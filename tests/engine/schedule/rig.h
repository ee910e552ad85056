// A scheduler on a virtual clock: SchedulerCore and DeviceLoop over a FakeBackend, driven turn by
// turn on the test's thread.
#ifndef QUIVER_TESTS_ENGINE_SCHEDULE_RIG_H_
#define QUIVER_TESTS_ENGINE_SCHEDULE_RIG_H_

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/schedule/device_loop.h"
#include "engine/schedule/scheduler.h"
#include "engine/schedule/scheduler_core.h"
#include "tests/testing/fake_backend.h"
#include "tests/testing/virtual_clock.h"

namespace quiver {

// What a test says of a task.
struct Wish {
  int length = 10;
  Lane lane = Lane::kInteractive;
  std::string tenant = {};
  // From the submission on.
  absl::Duration timeout = absl::InfiniteDuration();
  std::shared_ptr<const CancellationFlag> cancellation = nullptr;
  // Unless empty, the ids; else `length` of them that no other task has.
  std::vector<TokenId> ids = {};
  OutputSpec output = {.dimensions = 4};
};

// What became of it.
struct Sent {
  std::vector<TokenId> ids;
  OutputSpec output;
  absl::Time at;
  absl::Status submitted;
  int times_done = 0;
  std::optional<TaskResult> result;
  absl::Time done_at;
  // Among all answered tasks of the rig, from 0.
  int rank = -1;

  bool done() const { return result.has_value(); }
  absl::StatusCode code() const {
    return done() ? result->vector.status().code() : absl::StatusCode::kUnknown;
  }
};

struct Dropped {
  Lane lane;
  DropPoint where;
  absl::StatusCode code;

  friend bool operator==(const Dropped&, const Dropped&) = default;
};

class RecordingObserver : public SchedulerObserver {
 public:
  void OnBatch(const BatchReport& report) override {
    absl::MutexLock lock(&mutex_);
    batches_.push_back(report);
  }
  void OnJoined(Lane) override {
    absl::MutexLock lock(&mutex_);
    ++joined_;
  }
  void OnDropped(Lane lane, DropPoint where, absl::StatusCode code) override {
    absl::MutexLock lock(&mutex_);
    dropped_.push_back({lane, where, code});
  }
  std::vector<BatchReport> batches() const {
    absl::MutexLock lock(&mutex_);
    return batches_;
  }
  int joined() const {
    absl::MutexLock lock(&mutex_);
    return joined_;
  }
  std::vector<Dropped> dropped() const {
    absl::MutexLock lock(&mutex_);
    return dropped_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::vector<BatchReport> batches_ ABSL_GUARDED_BY(mutex_);
  std::vector<Dropped> dropped_ ABSL_GUARDED_BY(mutex_);
  int joined_ ABSL_GUARDED_BY(mutex_) = 0;
};

class Rig {
 public:
  explicit Rig(FakeBackend::Options backend = {}, Scheduler::Options options = {});
  // Fails what is left, and the calling test unless every accepted task was answered exactly once,
  // with its own vector if with one, and no other task at all.
  ~Rig();

  // The reference stays valid.
  Sent& Send(const Wish& wish = {});
  std::vector<Sent*> SendMany(int n, const Wish& wish = {});

  bool Turn() { return loop_.Turn(); }
  // Turns until there is nothing to do.
  void RunAll();
  // Turns while `more`; false if there was nothing left to do before that.
  bool RunWhile(const std::function<bool()>& more);
  // The parts of a turn, as threads of their own do them in any order.
  bool Step() { return loop_.Step(); }
  bool Prepare() { return loop_.Prepare(); }
  // Answers what has been decided outside of a turn.
  void Deliver() { loop_.Answer(); }

  int64_t now() const { return absl::ToUnixNanos(clock.Now()); }
  QueueSnapshot Snapshot() {
    absl::MutexLock lock(&mutex_);
    return core.Snapshot(now());
  }

  VirtualClock clock;
  RecordingObserver observer;
  FakeBackend backend;
  // Null unless the backend keeps prefixes.
  std::unique_ptr<PrefixCache> prefixes;
  SchedulerCore core;
  std::deque<Sent> sent;
  // What was told of the device's loss.
  std::vector<absl::Status> lost;

 private:
  absl::Mutex mutex_;
  DeviceLoop loop_;
  TokenId next_id_ = 1000;
  int answered_ = 0;
};

// What a model of these coefficients would have learned.
CostModel LearnedCost(double fixed_us, double token_us, double pair_us = 0);

// Ids that no wish without ids has.
std::vector<TokenId> Ids(int length, TokenId first = 1);

}  // namespace quiver

#endif  // QUIVER_TESTS_ENGINE_SCHEDULE_RIG_H_
