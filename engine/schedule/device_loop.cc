#include "engine/schedule/device_loop.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/schedule/guarded.h"

namespace quiver {

DeviceLoop::DeviceLoop(SchedulerCore* core, absl::Mutex* mutex, Backend* backend, Clock clock,
                       OnDeviceLost on_device_lost)
    : core_(core),
      mutex_(mutex),
      backend_(backend),
      clock_(std::move(clock)),
      on_device_lost_(std::move(on_device_lost)) {}

bool DeviceLoop::Step() {
  SchedulerCore::Action action;
  std::shared_ptr<Pass> abandoned;
  {
    absl::MutexLock lock(mutex_);
    action = core_->Next(clock_());
    if (action.kind == SchedulerCore::Action::Kind::kAbandon) {
      abandoned = std::move(passes_[action.seat]);
    }
    // A thread that sleeps till then need not be woken.
    if (core_->prepare_at() < wakes_at_) preparation_due_.Signal();
    if (core_->has_completions()) answers_due_.Signal();
  }
  switch (action.kind) {
    case SchedulerCore::Action::Kind::kWait:
      idle_since_ = -1;
      return false;
    case SchedulerCore::Action::Kind::kBegin:
      ++calls_;
      Begin(std::move(action));
      ++calls_;
      break;
    case SchedulerCore::Action::Kind::kRun:
      ++calls_;
      Run(action.seat, action.max_us);
      ++calls_;
      break;
    case SchedulerCore::Action::Kind::kAbandon:
      break;
  }
  return true;
}

void DeviceLoop::Begin(SchedulerCore::Action action) {
  using Prepared = SchedulerCore::Action::Prepared;
  std::unique_ptr<Pass> prepared;
  size_t ended = 0;
  {
    absl::MutexLock lock(mutex_);
    if (action.prepared != Prepared::kKeep) {
      while (preparing_) prepared_changed_.Wait(mutex_);
      prepared = std::move(prepared_);
    }
    ended = ended_.size();
  }
  for (; ended > kMaxEnded; --ended) TakeResults();
  absl::StatusOr<std::unique_ptr<Pass>> pass = absl::UnavailableError("nothing was prepared");
  if (action.prepared == Prepared::kUse && prepared != nullptr) {
    const absl::Status claimed = Guarded([&] {
      return prepared->Claim() ? absl::OkStatus() : absl::UnavailableError("its place is taken");
    });
    if (claimed.ok()) pass = std::move(prepared);
  }
  prepared.reset();
  if (!pass.ok()) {
    absl::MutexLock lock(&begin_mutex_);
    pass = Guarded([&] { return backend_->Begin(std::move(action.batch)); });
  }
  if (!pass.ok()) return Fail(action.seat, pass.status());
  if (*pass == nullptr) {
    return Fail(action.seat, absl::InternalError("the backend gave no pass"));
  }
  absl::MutexLock lock(mutex_);
  passes_[action.seat] = *std::move(pass);
}

void DeviceLoop::Run(int seat, int64_t max_us) {
  Pass* pass = nullptr;
  {
    absl::MutexLock lock(mutex_);
    pass = passes_[seat].get();
  }
  const int64_t start = clock_();
  const absl::StatusOr<bool> complete = Guarded([&] { return pass->Run(max_us); });
  const int64_t end = clock_();
  // A clock that was set back takes nothing back.
  const int64_t spent = std::max<int64_t>(0, end - start);
  const int64_t gap = idle_since_ >= 0 ? std::max<int64_t>(0, start - idle_since_) : -1;
  idle_since_ = complete.ok() && *complete ? end : -1;
  {
    absl::MutexLock lock(mutex_);
    core_->Ran(seat, spent, gap);
    if (complete.ok() && *complete) {
      ended_.push_back({core_->Complete(seat), std::move(passes_[seat])});
      answers_due_.Signal();
    }
  }
  if (!complete.ok()) Fail(seat, complete.status());
}

void DeviceLoop::Fail(int seat, absl::Status error) {
  const absl::Status device = Guarded([&] { return backend_->CheckDevice(); });
  if (!device.ok()) error = Lost(device.message());
  std::shared_ptr<Pass> failed;
  {
    absl::MutexLock lock(mutex_);
    failed = std::move(passes_[seat]);
    core_->Failed(seat, error, clock_());
    if (core_->has_completions()) answers_due_.Signal();
  }
  if (!device.ok()) Lose(error);
}

absl::Status DeviceLoop::Lost(absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("the device is lost: ", why));
}

void DeviceLoop::Lose(const absl::Status& why) {
  {
    absl::MutexLock lock(mutex_);
    core_->Stop(why, clock_());
    answers_due_.Signal();
    if (std::exchange(device_lost_, true)) return;
  }
  if (on_device_lost_ != nullptr) on_device_lost_(why);
}

bool DeviceLoop::TakeResults() {
  Ended ended;
  {
    absl::MutexLock lock(mutex_);
    if (ended_.empty()) return false;
    ended = std::move(ended_.front());
    ended_.pop_front();
  }
  absl::StatusOr<SchedulerCore::Results> results =
      Guarded([&]() -> absl::StatusOr<SchedulerCore::Results> { return ended.pass->Finish(); });
  ended.pass.reset();
  absl::MutexLock lock(mutex_);
  core_->Finished(ended.number, std::move(results), clock_());
  answers_due_.Signal();
  return true;
}

void DeviceLoop::Deliver() {
  std::vector<Completion> completions;
  {
    absl::MutexLock lock(mutex_);
    completions = core_->TakeCompletions();
  }
  if (completions.empty()) return;
  for (Completion& completion : completions) completion.Deliver();
  absl::MutexLock lock(mutex_);
  core_->Delivered(completions.size());
}

bool DeviceLoop::Answer() {
  Deliver();
  bool any = false;
  for (; TakeResults(); any = true) Deliver();
  return any;
}

bool DeviceLoop::Prepare() {
  std::optional<SchedulerCore::Preparation> next;
  std::shared_ptr<Pass> before;
  std::unique_ptr<Pass> outdated;
  {
    absl::MutexLock lock(mutex_);
    next = core_->Prepare(clock_());
    // Of what was sealed, some may have been given up.
    if (core_->has_completions()) answers_due_.Signal();
    if (!next.has_value()) return false;
    before = passes_[next->seat];
    outdated = std::move(prepared_);
    preparing_ = true;
  }
  outdated.reset();
  absl::StatusOr<std::unique_ptr<Pass>> pass;
  {
    absl::MutexLock lock(&begin_mutex_);
    pass = Guarded([&] { return backend_->Prepare(std::move(next->batch), *before); });
  }
  before.reset();
  absl::MutexLock lock(mutex_);
  if (pass.ok()) prepared_ = *std::move(pass);
  preparing_ = false;
  prepared_changed_.Signal();
  return true;
}

void DeviceLoop::KeepAnswering(const std::function<void()>& answered) {
  for (;;) {
    {
      absl::MutexLock lock(mutex_);
      while (!HasAnswers()) {
        if (stopped_) return;
        answers_due_.Wait(mutex_);
      }
    }
    Answer();
    answered();
  }
}

void DeviceLoop::KeepPreparing() {
  for (;;) {
    {
      absl::MutexLock lock(mutex_);
      for (;;) {
        if (stopped_) return;
        const int64_t now = clock_();
        if (core_->prepare_at() <= now) break;
        wakes_at_ = core_->prepare_at();
        preparation_due_.WaitWithDeadline(
            mutex_, wakes_at_ == kNever ? absl::InfiniteFuture() : absl::FromUnixNanos(wakes_at_));
      }
      wakes_at_ = 0;
    }
    Prepare();
  }
}

void DeviceLoop::Stop() {
  absl::MutexLock lock(mutex_);
  stopped_ = true;
  answers_due_.SignalAll();
  preparation_due_.SignalAll();
}

}  // namespace quiver
