#ifndef QUIVER_TOOLS_CLIENT_EVENT_LOOP_H_
#define QUIVER_TOOLS_CLIENT_EVENT_LOOP_H_

#include <cstdint>
#include <deque>
#include <map>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace quiver::client {

// One thread that runs tasks one after another: the client's calls and streams change their state
// here alone, so that they need no locks among themselves. Thread-safe.
class EventLoop {
 public:
  using Task = absl::AnyInvocable<void()>;
  // When, and a number of its own.
  using Timer = std::pair<absl::Time, uint64_t>;

  EventLoop() : thread_([this] { Run(); }) {}
  // Waits for the running task; those that wait are destroyed.
  ~EventLoop();

  void Post(Task task);
  // Runs `task` at `time` or soon after; never for InfiniteFuture.
  Timer PostAt(absl::Time time, Task task);
  // Without effect once the task runs or ran.
  void Cancel(const Timer& timer);

  bool OnLoop() const { return std::this_thread::get_id() == thread_.get_id(); }

 private:
  void Run();
  bool Wakes() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_ || !tasks_.empty() || timers_changed_;
  }

  absl::Mutex mutex_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  std::map<Timer, Task> timers_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_timer_ ABSL_GUARDED_BY(mutex_) = 0;
  // Whether a timer has come before those that the thread sleeps for.
  bool timers_changed_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_EVENT_LOOP_H_
