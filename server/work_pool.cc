#include "server/work_pool.h"

#include <utility>

#include "absl/time/clock.h"

namespace quiver {
namespace {

constexpr unsigned kTurnsPerBulkTurn = 4;

}  // namespace

WorkPool::WorkPool(int threads) {
  threads_.reserve(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

WorkPool::~WorkPool() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

void WorkPool::Add(Lane lane, Job job) {
  absl::MutexLock lock(&mutex_);
  ready_[static_cast<int>(lane)].push_back({lane, std::move(job)});
}

bool WorkPool::HasWork() const {
  for (const auto& queue : ready_) {
    if (!queue.empty()) return true;
  }
  // A job that runs may ask for another slice, and add jobs.
  return stopping_ && (!delayed_.empty() || running_ == 0);
}

void WorkPool::WakeDelayed() {
  const absl::Time now = stopping_ ? absl::InfiniteFuture() : absl::Now();
  while (!delayed_.empty() && delayed_.begin()->first <= now) {
    Entry& entry = delayed_.begin()->second;
    ready_[static_cast<int>(entry.lane)].push_back(std::move(entry));
    delayed_.erase(delayed_.begin());
  }
}

WorkPool::Entry WorkPool::Next() {
  const bool bulk_first = ++turn_ % kTurnsPerBulkTurn == 0;
  auto* queue = &ready_[static_cast<int>(bulk_first ? Lane::kBulk : Lane::kInteractive)];
  if (queue->empty()) {
    queue = &ready_[static_cast<int>(bulk_first ? Lane::kInteractive : Lane::kBulk)];
  }
  Entry entry = std::move(queue->front());
  queue->pop_front();
  return entry;
}

void WorkPool::Work() {
  absl::MutexLock lock(&mutex_);
  while (true) {
    const absl::Time wake = delayed_.empty() ? absl::InfiniteFuture() : delayed_.begin()->first;
    mutex_.AwaitWithDeadline(absl::Condition(this, &WorkPool::HasWork), wake);
    WakeDelayed();
    if (ready_[0].empty() && ready_[1].empty()) {
      if (stopping_ && running_ == 0) return;
      continue;
    }
    Entry entry = Next();
    ++running_;
    mutex_.Unlock();
    const absl::Duration wait = entry.job();
    if (wait == kFinished) entry.job = nullptr;
    mutex_.Lock();
    --running_;
    if (wait == kFinished) continue;
    if (wait <= absl::ZeroDuration() || stopping_) {
      ready_[static_cast<int>(entry.lane)].push_back(std::move(entry));
    } else {
      delayed_.emplace(absl::Now() + wait, std::move(entry));
    }
  }
}

}  // namespace quiver
