#include "engine/schedule/lane_queue.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/types/span.h"

namespace quiver {
namespace {

// A batch is closed once this many jobs have been found not to fit.
constexpr int kMaxMisfits = 16;

uint64_t HashOf(const EmbedTask& task) {
  return absl::HashOf(absl::MakeConstSpan(task.token_ids), task.output.dimensions,
                      task.output.normalize, static_cast<int>(task.output.type));
}

TaskResult Result(absl::StatusOr<EncodedVector> vector, int64_t submitted, int64_t started,
                  int64_t now) {
  TaskResult out{std::move(vector), absl::ZeroDuration(), absl::ZeroDuration()};
  const int64_t begin = std::max(submitted, std::min(started, now));
  out.queue_time = absl::Nanoseconds(begin - submitted);
  out.compute_time = absl::Nanoseconds(now - begin);
  return out;
}

}  // namespace

LaneQueue::LaneQueue(Lane lane, const Scheduler::Options& options, SchedulerObserver* observer,
                     std::vector<Completion>* completions)
    : lane_(lane), options_(options), observer_(observer), completions_(completions) {}

LaneQueue::~LaneQueue() {
  assert(tasks_ == 0 && retry_.empty());
  // Entries of jobs that are long done.
  TaskQueue::Entry entry;
  Tenant* tenant;
  while (tenants_.Next(&entry, &tenant)) Release(entry.job);
}

Job* LaneQueue::FindEqual(const EmbedTask& task, uint64_t hash) const {
  const auto it = joinable_.find(hash);
  if (it == joinable_.end()) return nullptr;
  Job* job = it->second;
  return job->ids == task.token_ids && job->output == task.output ? job : nullptr;
}

int64_t LaneQueue::DueOf(const EmbedTask& task, int64_t now) const {
  const int64_t deadline = ToNanos(task.deadline);
  return deadline == kNever ? now + absl::ToInt64Nanoseconds(Scheduler::kPatience) : deadline;
}

int64_t LaneQueue::Excess(const EmbedTask& task) const {
  if (tasks_ == 0) return 0;
  const int64_t length = static_cast<int64_t>(task.token_ids.size());
  const int64_t over_tokens = tokens_ + length - options_.max_queued_tokens;
  const int64_t over_tasks = tasks_ + 1 - options_.max_queued_tasks;
  if (over_tokens <= 0 && over_tasks <= 0) return 0;
  if (over_tokens <= options_.max_queued_tokens / 4 &&
      over_tasks <= options_.max_queued_tasks / 4) {
    const Tenant* tenant = tenants_.Find(task.tenant);
    const int64_t held_tokens = tenant == nullptr ? 0 : tenant->tokens;
    const int64_t held_tasks = tenant == nullptr ? 0 : tenant->tasks;
    if (held_tokens + length <= options_.max_queued_tokens / 16 &&
        held_tasks + 1 <= options_.max_queued_tasks / 16) {
      return 0;
    }
  }
  return std::max({int64_t{1}, over_tokens, over_tasks * (tokens_ / tasks_)});
}

int64_t LaneQueue::TokensAhead(const EmbedTask& task, int64_t now) const {
  return tenants_.TokensAhead(tenants_.Find(task.tenant), DueOf(task, now));
}

int64_t LaneQueue::head_length() const {
  if (!retry_.empty()) return 0;
  const Job* job = tenants_.Peek();
  return job == nullptr ? 0 : job->length();
}

void LaneQueue::Add(EmbedTask&& task, int64_t now) {
  const int64_t due = DueOf(task, now);
  const bool has_deadline = task.deadline != absl::InfiniteFuture();
  const uint64_t hash = HashOf(task);
  Waiter waiter{std::move(task.done), std::move(task.cancellation), ToNanos(task.deadline), now};
  const bool mortal = has_deadline || waiter.cancellation != nullptr;

  if (Job* equal = FindEqual(task, hash); equal != nullptr) {
    equal->waiters.push_back(std::move(waiter));
    equal->has_deadline |= has_deadline;
    if (equal->state != Job::State::kRunning) {
      ++tasks_;
      mortal_ += mortal;
    }
    // Further ahead in the queue; the entry it had will be found to be stale.
    if (equal->state == Job::State::kQueued && due < equal->due) {
      equal->due = due;
      tenants_.Push(equal->tenant, {due, next_number_++, equal});
    }
    return;
  }

  Job* job = new Job;
  job->ids = std::move(task.token_ids);
  job->output = task.output;
  job->hash = hash;
  job->joinable = joinable_.try_emplace(hash, job).second;
  job->due = due;
  job->has_deadline = has_deadline;
  job->submitted = now;
  job->waiters.push_back(std::move(waiter));
  job->tenant = tenants_.Get(task.tenant);
  job->tenant->tokens += job->length();
  ++job->tenant->tasks;
  ++tasks_;
  mortal_ += mortal;
  tokens_ += job->length();
  Link(job);
  tenants_.Push(job->tenant, {due, next_number_++, job});
}

void LaneQueue::Link(Job* job) {
  job->older = newest_;
  job->newer = nullptr;
  (newest_ == nullptr ? oldest_ : newest_->newer) = job;
  newest_ = job;
}

void LaneQueue::Unlink(Job* job) {
  if (swept_ == job) swept_ = job->newer;
  (job->older == nullptr ? oldest_ : job->older->newer) = job->newer;
  (job->newer == nullptr ? newest_ : job->newer->older) = job->older;
}

void LaneQueue::Release(Job* job) {
  if (--job->entries == 0 && job->state == Job::State::kDone) delete job;
}

// Out of the queue's accounts, into a pass's.
void LaneQueue::Start(Job* job, int64_t now) {
  tasks_ -= static_cast<int64_t>(job->waiters.size());
  for (const Waiter& waiter : job->waiters) {
    mortal_ -= waiter.deadline != kNever || waiter.cancellation != nullptr;
  }
  tokens_ -= job->length();
  if (job->state == Job::State::kQueued) {
    job->tenant->tokens -= job->length();
    --job->tenant->tasks;
    job->tenant = nullptr;
  }
  Unlink(job);
  job->state = Job::State::kRunning;
  job->started = now;
}

std::vector<Job*> LaneQueue::SealRetry(int64_t now) {
  std::vector<Job*> batch;
  while (batch.empty() && !retry_.empty()) {
    for (Job* job : retry_.front()) {
      if (job->state == Job::State::kRetrying && Prune(job, now, DropPoint::kQueue)) {
        Start(job, now);
        batch.push_back(job);
      }
      Release(job);
    }
    retry_.pop_front();
  }
  return batch;
}

std::vector<Job*> LaneQueue::Seal(const Budget& budget, const CostModel& cost, int64_t now) {
  std::vector<Job*> batch = SealRetry(now);
  if (!batch.empty()) return batch;
  CostModel::Work work;
  int misfits = 0;
  TaskQueue::Entry entry;
  Tenant* tenant;
  while (static_cast<int>(batch.size()) < budget.sequences && work.tokens < budget.tokens &&
         misfits < kMaxMisfits && tenants_.Next(&entry, &tenant)) {
    Job* job = entry.job;
    if (job->state != Job::State::kQueued || !Prune(job, now, DropPoint::kQueue)) {
      Release(job);
      continue;
    }
    const CostModel::Work with = work.With(job->length());
    if (!batch.empty() && (with.tokens > budget.tokens || cost.PredictUs(with) > budget.us)) {
      // Who is passed over must not lose by it: never by a later deadline, and not again and again.
      const bool hold =
          lane_ == Lane::kInteractive || job->has_deadline || ++job->skips > kMaxSkips;
      tenants_.SetAside(tenant, entry, hold);
      ++misfits;
      continue;
    }
    work = with;
    tenants_.Take(tenant, job->length());
    Start(job, now);
    Release(job);
    batch.push_back(job);
  }
  tenants_.EndRound();
  return batch;
}

void LaneQueue::Retry(const std::vector<Job*>& jobs) {
  for (Job* job : jobs) {
    job->state = Job::State::kRetrying;
    ++job->entries;
    tasks_ += static_cast<int64_t>(job->waiters.size());
    for (const Waiter& waiter : job->waiters) {
      mortal_ += waiter.deadline != kNever || waiter.cancellation != nullptr;
    }
    tokens_ += job->length();
    Link(job);
  }
  const auto middle = jobs.begin() + static_cast<std::ptrdiff_t>(jobs.size() / 2);
  if (middle != jobs.end()) retry_.emplace_front(middle, jobs.end());
  if (middle != jobs.begin()) retry_.emplace_front(jobs.begin(), middle);
}

void LaneQueue::Finish(Job* job, absl::StatusOr<EncodedVector> result, int64_t now) {
  for (size_t i = 0; i < job->waiters.size(); ++i) {
    Waiter& waiter = job->waiters[i];
    const bool last = i + 1 == job->waiters.size();
    completions_->push_back({std::move(waiter.done), Result(last ? std::move(result) : result,
                                                            waiter.submitted, job->started, now)});
  }
  job->waiters.clear();
  Retire(job);
  if (job->entries == 0) delete job;
}

bool LaneQueue::KeepRunning(Job* job, int64_t now) {
  if (Prune(job, now, DropPoint::kRunning)) return true;
  if (job->entries == 0) delete job;
  return false;
}

void LaneQueue::Drop(Job* job, Waiter& waiter, const absl::Status& status, int64_t now,
                     DropPoint where) {
  const int64_t started = where == DropPoint::kRunning ? job->started : now;
  completions_->push_back({std::move(waiter.done), Result(status, waiter.submitted, started, now)});
  if (where == DropPoint::kQueue) {
    --tasks_;
    mortal_ -= waiter.deadline != kNever || waiter.cancellation != nullptr;
  }
  if (observer_ != nullptr) observer_->OnDropped(lane_, where, status.code());
}

bool LaneQueue::Prune(Job* job, int64_t now, DropPoint where) {
  auto& waiters = job->waiters;
  for (size_t i = 0; i < waiters.size();) {
    Waiter& waiter = waiters[i];
    if (waiter.cancelled()) {
      Drop(job, waiter, absl::CancelledError("the caller cancelled"), now, where);
    } else if (waiter.deadline <= now) {
      Drop(job, waiter,
           absl::DeadlineExceededError(where == DropPoint::kQueue
                                           ? "the deadline passed while waiting for the device"
                                           : "the deadline passed while computing"),
           now, where);
    } else {
      ++i;
      continue;
    }
    waiters.erase(waiters.begin() + static_cast<std::ptrdiff_t>(i));
  }
  if (!waiters.empty()) return true;
  Retire(job);
  return false;
}

void LaneQueue::Retire(Job* job) {
  if (job->state == Job::State::kQueued || job->state == Job::State::kRetrying) {
    tokens_ -= job->length();
    if (job->state == Job::State::kQueued) {
      job->tenant->tokens -= job->length();
      --job->tenant->tasks;
      job->tenant = nullptr;
    }
    Unlink(job);
  }
  if (job->joinable) joinable_.erase(job->hash);
  job->state = Job::State::kDone;
  // A stale entry may keep the job for long; its ids are of no more use.
  std::vector<TokenId>().swap(job->ids);
}

void LaneQueue::Sweep(int64_t now, int limit) {
  if (mortal_ == 0) return;
  for (int i = 0; i < limit; ++i) {
    if (swept_ == nullptr) {
      swept_ = oldest_;
      // Once round is enough.
      if (i > 0) return;
    }
    if (swept_ == nullptr) return;
    Job* job = swept_;
    swept_ = job->newer;
    Prune(job, now, DropPoint::kQueue);
  }
}

void LaneQueue::FailAll(const absl::Status& status, int64_t now) {
  while (oldest_ != nullptr) {
    Job* job = oldest_;
    for (Waiter& waiter : job->waiters) Drop(job, waiter, status, now, DropPoint::kQueue);
    job->waiters.clear();
    Retire(job);
  }
  for (const std::vector<Job*>& group : retry_) {
    for (Job* job : group) Release(job);
  }
  retry_.clear();
}

}  // namespace quiver
