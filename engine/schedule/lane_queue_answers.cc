// How the tasks of a lane are answered.
#include <algorithm>
#include <utility>

#include "engine/schedule/lane_queue.h"

namespace quiver {
namespace {

TaskResult Result(absl::StatusOr<EncodedVector> vector, int64_t submitted, int64_t started,
                  int64_t now) {
  const int64_t begin = std::max(submitted, std::min(started, now));
  return {.vector = std::move(vector),
          .queue_time = absl::Nanoseconds(begin - submitted),
          .compute_time = absl::Nanoseconds(std::max<int64_t>(0, now - begin)),
          .answered = absl::FromUnixNanos(now)};
}

}  // namespace

void LaneQueue::Finish(Job* job, absl::StatusOr<EncodedVector> result, const BatchShape& batch,
                       int64_t now) {
  for (size_t i = 0; i < job->waiters.size(); ++i) {
    Waiter& waiter = job->waiters[i];
    const bool last = i + 1 == job->waiters.size();
    completions_->push_back({std::move(waiter.done), Result(last ? std::move(result) : result,
                                                            waiter.submitted, job->started, now)});
    completions_->back().result.batch = batch;
  }
  job->waiters.clear();
  Retire(job);
  if (job->entries == 0) delete job;
}

void LaneQueue::GiveUp(Job* job, const absl::Status& status, int64_t now) {
  for (Waiter& waiter : job->waiters) Drop(job, waiter, status, now, DropPoint::kRunning);
  job->waiters.clear();
  Retire(job);
  if (job->entries == 0) delete job;
}

bool LaneQueue::KeepRunning(Job* job, int64_t now, DropPoint where) {
  if (Prune(job, now, where)) return true;
  if (job->entries == 0) delete job;
  return false;
}

void LaneQueue::Drop(Job* job, Waiter& waiter, const absl::Status& status, int64_t now,
                     DropPoint where) {
  const int64_t started = where == DropPoint::kRunning ? job->started : now;
  completions_->push_back({std::move(waiter.done), Result(status, waiter.submitted, started, now)});
  if (job->state == Job::State::kQueued || job->state == Job::State::kRetrying) {
    --tasks_;
    mortal_ -= waiter.mortal();
  }
  if (observer_ != nullptr) observer_->OnDropped(lane_, where, status.code());
}

bool LaneQueue::Prune(Job* job, int64_t now, DropPoint where) {
  auto& waiters = job->waiters;
  size_t kept = 0;
  for (size_t i = 0; i < waiters.size(); ++i) {
    Waiter& waiter = waiters[i];
    const bool cancelled = waiter.cancelled();
    if (cancelled && waiter.deadline - absl::ToInt64Nanoseconds(kCancelledAtDeadline) > now) {
      Drop(job, waiter, absl::CancelledError("the caller cancelled"), now, where);
    } else if (cancelled || waiter.deadline <= now) {
      Drop(job, waiter,
           absl::DeadlineExceededError(where == DropPoint::kQueue
                                           ? "the deadline passed while waiting for the device"
                                           : "the deadline passed while computing"),
           now, where);
    } else {
      if (kept != i) waiters[kept] = std::move(waiter);
      ++kept;
    }
  }
  if (kept == waiters.size()) return true;
  waiters.erase(waiters.begin() + static_cast<std::ptrdiff_t>(kept), waiters.end());
  if (kept > 0) return true;
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
  joined_ -= std::exchange(job->joined, 0);
  if (job->joinable) joinable_.erase(job->hash);
  job->state = Job::State::kDone;
  // A stale entry may keep the job for long; its ids are of no more use.
  std::vector<TokenId>().swap(job->ids);
  job->prefix.reset();
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
