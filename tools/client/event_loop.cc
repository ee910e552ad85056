#include "tools/client/event_loop.h"

#include "absl/time/clock.h"

namespace quiver::client {

EventLoop::~EventLoop() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

void EventLoop::Post(Task task) {
  absl::MutexLock lock(&mutex_);
  tasks_.push_back(std::move(task));
}

EventLoop::Timer EventLoop::PostAt(absl::Time time, Task task) {
  absl::MutexLock lock(&mutex_);
  const Timer timer(time, next_timer_++);
  if (time == absl::InfiniteFuture()) return timer;
  timers_changed_ |= timers_.empty() || timer < timers_.begin()->first;
  timers_.emplace(timer, std::move(task));
  return timer;
}

void EventLoop::Cancel(const Timer& timer) {
  Task task;
  absl::MutexLock lock(&mutex_);
  const auto found = timers_.find(timer);
  if (found == timers_.end()) return;
  // Destroyed after the lock is let go: it may hold the last of something that ends others.
  task = std::move(found->second);
  timers_.erase(found);
}

void EventLoop::Run() {
  for (;;) {
    Task task;
    {
      absl::MutexLock lock(&mutex_);
      const absl::Time next =
          timers_.empty() ? absl::InfiniteFuture() : timers_.begin()->first.first;
      mutex_.AwaitWithDeadline(absl::Condition(this, &EventLoop::Wakes), next);
      if (stop_) return;
      timers_changed_ = false;
      // Timers that are due go first: however much is posted, they are not late.
      if (!timers_.empty() && timers_.begin()->first.first <= absl::Now()) {
        task = std::move(timers_.begin()->second);
        timers_.erase(timers_.begin());
      } else if (!tasks_.empty()) {
        task = std::move(tasks_.front());
        tasks_.pop_front();
      } else {
        continue;
      }
    }
    task();
  }
}

}  // namespace quiver::client
