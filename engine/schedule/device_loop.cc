#include "engine/schedule/device_loop.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/schedule/guarded.h"

namespace quiver {
DeviceLoop::DeviceLoop(SchedulerCore* core, absl::Mutex* mutex, Backend* backend, Clock clock)
    : core_(core), mutex_(mutex), backend_(backend), clock_(std::move(clock)) {}

bool DeviceLoop::Turn() {
  SchedulerCore::Action action;
  {
    absl::MutexLock lock(mutex_);
    action = core_->Next(clock_());
  }
  switch (action.kind) {
    case SchedulerCore::Action::Kind::kWait:
      break;
    case SchedulerCore::Action::Kind::kBegin:
      Begin(action.seat, std::move(action.batch));
      break;
    case SchedulerCore::Action::Kind::kRun:
      Run(action.seat, action.max_us);
      break;
    case SchedulerCore::Action::Kind::kAbandon:
      passes_[action.seat].reset();
      break;
  }
  Deliver();
  return action.kind != SchedulerCore::Action::Kind::kWait;
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

void DeviceLoop::Begin(int seat, PackedBatch batch) {
  absl::StatusOr<std::unique_ptr<Pass>> pass =
      Guarded([&] { return backend_->Begin(std::move(batch)); });
  if (!pass.ok()) return Fail(seat, pass.status());
  if (*pass == nullptr) return Fail(seat, absl::InternalError("the backend gave no pass"));
  passes_[seat] = *std::move(pass);
}

void DeviceLoop::Run(int seat, int64_t max_us) {
  Pass* pass = passes_[seat].get();
  const int64_t start = clock_();
  const absl::StatusOr<bool> complete = Guarded([&] { return pass->Run(max_us); });
  // A clock that was set back takes nothing back.
  const int64_t spent = std::max<int64_t>(0, clock_() - start);
  {
    absl::MutexLock lock(mutex_);
    core_->Ran(seat, spent);
  }
  if (!complete.ok()) return Fail(seat, complete.status());
  if (!*complete) return;
  using Results = std::vector<absl::StatusOr<EncodedVector>>;
  absl::StatusOr<Results> results =
      Guarded([&]() -> absl::StatusOr<Results> { return pass->Finish(); });
  if (!results.ok()) return Fail(seat, results.status());
  passes_[seat].reset();
  absl::MutexLock lock(mutex_);
  core_->Finished(seat, *std::move(results), clock_());
}

void DeviceLoop::Fail(int seat, const absl::Status& error) {
  passes_[seat].reset();
  absl::MutexLock lock(mutex_);
  core_->Failed(seat, error, clock_());
}

}  // namespace quiver
