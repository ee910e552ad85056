#ifndef QUIVER_ENGINE_SCHEDULE_DEVICE_LOOP_H_
#define QUIVER_ENGINE_SCHEDULE_DEVICE_LOOP_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "engine/run/backend.h"
#include "engine/schedule/scheduler_core.h"

namespace quiver {

// Does on a backend what a SchedulerCore decides, one action at a time. An exception of the backend
// counts as a failed pass.
//
// Step, Prepare and Answer may each be driven by a thread of its own, so that the device waits for
// neither of the latter; or all by one, in any order.
class DeviceLoop {
 public:
  // Nanoseconds since the epoch.
  using Clock = std::function<int64_t()>;

  // As Scheduler::Options::on_device_lost; may be null.
  using OnDeviceLost = std::function<void(const absl::Status&)>;

  // All must outlive the loop. `mutex` guards `core`; it is not held while the backend works or a
  // completion is delivered.
  DeviceLoop(SchedulerCore* core, absl::Mutex* mutex, Backend* backend, Clock clock,
             OnDeviceLost on_device_lost = nullptr);

  // One action. Returns false if there was nothing to do.
  bool Step() ABSL_LOCKS_EXCLUDED(*mutex_);

  // Takes the results of passes that are complete, and delivers what has been answered. Returns
  // whether there was such a pass.
  bool Answer() ABSL_LOCKS_EXCLUDED(*mutex_);

  // Has the backend prepare the batch that follows the running pass, if there is one. Returns
  // whether there was.
  bool Prepare() ABSL_LOCKS_EXCLUDED(*mutex_);

  // A step, and its answers.
  bool Turn() ABSL_LOCKS_EXCLUDED(*mutex_) {
    const bool worked = Step();
    return Answer() || worked;
  }

  // Answer and Prepare over and over, as there is work for them, until Stop() is called; what is to
  // be answered then still is. `answered` is called after each Answer.
  void KeepAnswering(const std::function<void()>& answered) ABSL_LOCKS_EXCLUDED(*mutex_);
  void KeepPreparing() ABSL_LOCKS_EXCLUDED(*mutex_);
  void Stop() ABSL_LOCKS_EXCLUDED(*mutex_);

  // The number of calls of Step that the backend has been given and has ended: odd while it is at
  // one, which hangs if the number stays. Of any thread.
  uint64_t calls() const { return calls_.load(std::memory_order_relaxed); }
  // The device is lost, whatever the backend says of it: fails all that is left with `why`, of
  // Lost(), for Answer to deliver, and tells of the first such loss. Of any thread.
  void Lose(const absl::Status& why) ABSL_LOCKS_EXCLUDED(*mutex_);
  static absl::Status Lost(absl::string_view why);

 private:
  struct Ended {
    uint64_t number = 0;
    std::shared_ptr<Pass> pass;
  };

  // Passes whose results wait for Answer; beyond that Step takes them itself, as a backend has no
  // room for more.
  static constexpr size_t kMaxEnded = 1;

  void Begin(SchedulerCore::Action action);
  void Run(int seat, int64_t max_us);
  void Fail(int seat, absl::Status error);
  // The results of the pass that ended first; false if there is none.
  bool TakeResults();
  void Deliver();
  bool HasAnswers() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(*mutex_) {
    return !ended_.empty() || core_->has_completions();
  }

  SchedulerCore* const core_ ABSL_PT_GUARDED_BY(*mutex_);
  absl::Mutex* const mutex_;
  Backend* const backend_;
  const Clock clock_;
  const OnDeviceLost on_device_lost_;
  std::atomic<uint64_t> calls_{0};
  // Of Step's thread: the end of the last pass, if there was something to do ever since.
  int64_t idle_since_ = -1;

  // Held while the backend begins or prepares a pass.
  absl::Mutex begin_mutex_ ABSL_ACQUIRED_BEFORE(*mutex_);

  // Shared with Prepare alone.
  std::array<std::shared_ptr<Pass>, SchedulerCore::kNumSeats> passes_ ABSL_GUARDED_BY(*mutex_);
  std::deque<Ended> ended_ ABSL_GUARDED_BY(*mutex_);
  // What was prepared last; null if the backend could not. Valid while `preparing_` is false.
  std::unique_ptr<Pass> prepared_ ABSL_GUARDED_BY(*mutex_);
  bool preparing_ ABSL_GUARDED_BY(*mutex_) = false;
  // When KeepPreparing will wake by itself.
  int64_t wakes_at_ ABSL_GUARDED_BY(*mutex_) = 0;
  bool stopped_ ABSL_GUARDED_BY(*mutex_) = false;
  bool device_lost_ ABSL_GUARDED_BY(*mutex_) = false;
  absl::CondVar prepared_changed_;
  absl::CondVar answers_due_;
  absl::CondVar preparation_due_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_DEVICE_LOOP_H_
