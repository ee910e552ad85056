#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "engine/schedule/device_loop.h"
#include "engine/schedule/prefix_cache.h"
#include "engine/schedule/scheduler_core.h"
#include "engine/schedule/warm_up.h"

namespace quiver {
namespace {

constexpr char kRetryDelayUrl[] = "quiver/retry_delay_ns";
// Tasks that are submitted under one lock: the device's thread waits no longer than that takes.
constexpr size_t kTasksAtOnce = 64;

class ThreadedScheduler : public Scheduler {
 public:
  // `prefixes` may be null.
  ThreadedScheduler(const Options& options, Backend* backend, SchedulerObserver* observer,
                    std::unique_ptr<PrefixCache> prefixes)
      : prefixes_(std::move(prefixes)),
        core_(options, backend->info(), observer),
        loop_(
            &core_, &mutex_, backend, [] { return absl::GetCurrentTimeNanos(); },
            options.on_device_lost),
        answering_([this] { loop_.KeepAnswering([this] { OnAnswered(); }); }),
        preparing_([this] { loop_.KeepPreparing(); }),
        driving_([this] { Drive(); }) {
    if (backend->info().longest_call < absl::InfiniteDuration()) {
      watching_ = std::thread([this, most = backend->info().longest_call] { Watch(most); });
    }
  }

  ~ThreadedScheduler() override {
    {
      absl::MutexLock lock(&mutex_);
      core_.StopAccepting();
      core_.FailWaiting(Stopped(), absl::GetCurrentTimeNanos());
      stop_ = true;
      wake_.Signal();
      stopped_.Signal();
    }
    loop_.Answer();
    // It may have been the last results that the driving thread waits for.
    OnAnswered();
    driving_.join();
    if (watching_.joinable()) watching_.join();
    loop_.Stop();
    preparing_.join();
    answering_.join();
  }

  absl::Status Submit(EmbedTask&& task) override {
    auto findings = SchedulerCore::Findings::Of(task, prefixes_.get());
    absl::MutexLock lock(&mutex_);
    absl::Status status =
        core_.Submit(std::move(task), std::move(findings), absl::GetCurrentTimeNanos());
    if (asleep_ && status.ok()) wake_.Signal();
    return status;
  }

  std::vector<absl::Status> SubmitMany(absl::Span<EmbedTask> tasks) override {
    std::vector<absl::Status> out;
    out.reserve(tasks.size());
    for (; !tasks.empty(); tasks.remove_prefix(std::min(tasks.size(), kTasksAtOnce))) {
      const absl::Span<EmbedTask> some = tasks.subspan(0, kTasksAtOnce);
      std::array<SchedulerCore::Findings, kTasksAtOnce> findings;
      std::transform(some.begin(), some.end(), findings.begin(), [this](const EmbedTask& task) {
        return SchedulerCore::Findings::Of(task, prefixes_.get());
      });
      absl::MutexLock lock(&mutex_);
      const int64_t now = absl::GetCurrentTimeNanos();
      for (size_t i = 0; i < some.size(); ++i) {
        out.push_back(core_.Submit(std::move(some[i]), std::move(findings[i]), now));
        if (asleep_ && out.back().ok()) wake_.Signal();
      }
    }
    return out;
  }

  bool Drain(absl::Time deadline) override {
    bool all = true;
    {
      absl::MutexLock lock(&mutex_);
      core_.StopAccepting();
      ++drainers_;
      while (!core_.idle() && !idle_.WaitWithDeadline(&mutex_, deadline)) {
      }
      --drainers_;
      if (!core_.idle()) {
        all = false;
        const int64_t now = absl::GetCurrentTimeNanos();
        core_.FailWaiting(Stopped(), now);
        core_.FailRunning(Stopped(), now);
      }
    }
    loop_.Answer();
    // Others may drain as well, and a thread of the scheduler's may hang.
    OnAnswered();
    return all;
  }

  QueueSnapshot Snapshot() const override {
    absl::MutexLock lock(&mutex_);
    return core_.Snapshot(absl::GetCurrentTimeNanos());
  }

 private:
  static absl::Status Stopped() {
    return absl::UnavailableError("the server stopped before this was computed");
  }

  // Tasks have been answered; those of a pass that failed are to be tried again.
  void OnAnswered() {
    absl::MutexLock lock(&mutex_);
    if (drainers_ > 0 && core_.idle()) idle_.SignalAll();
    if (asleep_ && (stop_ || !core_.quiet())) wake_.Signal();
  }

  void Drive() {
    for (;;) {
      if (loop_.Step()) continue;
      absl::MutexLock lock(&mutex_);
      while (core_.quiet()) {
        if (stop_ && !core_.finishing()) return;
        asleep_ = true;
        wake_.Wait(&mutex_);
        asleep_ = false;
      }
    }
  }

  // Loses the device when a call takes longer than `most`. Time is counted in looks, so that a
  // clock that jumps loses nothing.
  void Watch(absl::Duration most) {
    constexpr int kLooks = 10;
    uint64_t seen = 0;
    int looks = 0;
    for (;;) {
      {
        absl::MutexLock lock(&mutex_);
        if (stop_) return;
        stopped_.WaitWithTimeout(&mutex_, most / kLooks);
        if (stop_) return;
      }
      const uint64_t calls = loop_.calls();
      const bool same = calls == seen && calls % 2 == 1;
      looks = same ? looks + 1 : 0;
      seen = calls;
      if (looks > kLooks) {
        loop_.Lose(DeviceLoop::Lost(
            absl::StrCat("a call has not come back for ", absl::FormatDuration(most))));
        return;
      }
    }
  }

  const std::unique_ptr<PrefixCache> prefixes_;
  mutable absl::Mutex mutex_;
  SchedulerCore core_ ABSL_GUARDED_BY(mutex_);
  DeviceLoop loop_;
  absl::CondVar wake_;
  absl::CondVar idle_;
  absl::CondVar stopped_;
  bool asleep_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  int drainers_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread answering_;
  std::thread preparing_;
  std::thread driving_;
  std::thread watching_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Scheduler>> Scheduler::Create(Options options, Backend* backend,
                                                             SchedulerObserver* observer) {
  const BackendInfo& info = backend->info();
  if (info.max_sequence_tokens < 1 || info.max_batch_tokens < info.max_sequence_tokens ||
      info.max_batch_sequences < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a backend of ", info.max_batch_tokens, " tokens and ", info.max_batch_sequences,
        " sequences a batch, ", info.max_sequence_tokens, " tokens a sequence"));
  }
  if (options.max_queued_tokens < 1 || options.max_queued_tasks < 1) {
    return absl::InvalidArgumentError(absl::StrCat("queue limits of ", options.max_queued_tokens,
                                                   " tokens and ", options.max_queued_tasks,
                                                   " tasks; each must be at least 1"));
  }
  if (options.max_batch_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a batch of ", options.max_batch_tokens, " tokens"));
  }
  if (!(options.bulk_share >= 0 && options.bulk_share <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a bulk share of ", options.bulk_share, "; it must be in [0, 1]"));
  }
  if (options.step_budget_us < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a step budget of ", options.step_budget_us, " us; it must be at least 1"));
  }
  std::unique_ptr<PrefixCache> prefixes;
  if (info.prefix_tokens > 0) {
    prefixes = std::make_unique<PrefixCache>(info.prefix_tokens);
    const absl::Status status = StorePrefixes(backend, options.prefixes, prefixes.get());
    if (!status.ok()) return status;
  }
  return std::make_unique<ThreadedScheduler>(options, backend, observer, std::move(prefixes));
}

absl::Duration RetryDelay(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kRetryDelayUrl);
  int64_t nanos = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &nanos)) {
    return absl::ZeroDuration();
  }
  return absl::Nanoseconds(nanos);
}

void SetRetryDelay(absl::Status* status, absl::Duration delay) {
  status->SetPayload(kRetryDelayUrl, absl::Cord(absl::StrCat(absl::ToInt64Nanoseconds(delay))));
}

}  // namespace quiver
