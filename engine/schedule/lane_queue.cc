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

// `job` may be null.
void Prefetch(const Job* job) {
  constexpr size_t kCacheLine = 64;
  const auto* bytes = reinterpret_cast<const char*>(job);
  for (size_t i = 0; i < sizeof(Job); i += kCacheLine) __builtin_prefetch(bytes + i, 1);
}

// What taking it out of the lane's list writes to, and its ids.
void PrefetchNeighbours(const Job* job) {
  __builtin_prefetch(job->older, 1);
  __builtin_prefetch(job->newer, 1);
  for (size_t i = 0; i < std::min<size_t>(job->ids.size(), 64); i += 16) {
    __builtin_prefetch(job->ids.data() + i);
  }
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

uint64_t LaneQueue::HashOf(const EmbedTask& task) {
  return absl::HashOf(absl::MakeConstSpan(task.token_ids), task.output.dimensions,
                      task.output.normalize, static_cast<int>(task.output.type));
}

LaneQueue::Place LaneQueue::Find(const EmbedTask& task, uint64_t hash, int64_t reused) const {
  Place place;
  place.hash = hash;
  const auto it = joinable_.find(place.hash);
  if (it != joinable_.end() && it->second->ids == task.token_ids &&
      it->second->output == task.output) {
    place.equal = it->second;
  } else {
    place.tokens = static_cast<int64_t>(task.token_ids.size()) - reused;
  }
  return place;
}

int64_t LaneQueue::DueOf(const EmbedTask& task, int64_t now) const {
  const int64_t deadline = ToNanos(task.deadline);
  return deadline == kNever ? now + absl::ToInt64Nanoseconds(Scheduler::kPatience) : deadline;
}

int64_t LaneQueue::Excess(const EmbedTask& task, const Place& place) const {
  // Who joins a running job does not wait in the lane, but is held as long.
  if (place.running()) return tasks_ + joined_ < options_.max_queued_tasks ? 0 : 1;
  if (tasks_ == 0) return 0;
  const int64_t length = place.tokens;
  const int64_t over_tokens =
      place.equal != nullptr ? 0 : tokens_ + length - options_.max_queued_tokens;
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

int64_t LaneQueue::TokensAhead(const EmbedTask& task, const Place& place, int64_t now) const {
  if (place.running()) return 0;
  int64_t ahead = tenants_.TokensAhead(tenants_.Find(task.tenant), DueOf(task, now));
  if (place.equal != nullptr) {
    ahead = std::min(ahead, tenants_.TokensAhead(place.equal->tenant, place.equal->due));
  }
  return ahead;
}

std::vector<QueueSnapshot::TenantState> LaneQueue::LargestTenants(int most) const {
  std::vector<QueueSnapshot::TenantState> out;
  for (const Tenant* tenant : tenants_.Largest(most)) {
    out.push_back({tenant->name, tenant->tasks, tenant->tokens});
  }
  return out;
}

CostModel::Work LaneQueue::Head(int64_t now) {
  CostModel::Work work;
  for (; !retry_.empty(); retry_.pop_front()) {
    // Those given up since are empty.
    for (const Job* job : retry_.front()) work = job->AddTo(work);
    if (work.tokens > 0) return work;
    for (Job* job : retry_.front()) Release(job);
  }
  TaskQueue::Entry entry;
  Tenant* tenant;
  while (Job* job = tenants_.Peek()) {
    if (job->state == Job::State::kQueued && Prune(job, now, DropPoint::kQueue)) {
      return job->AddTo(work);
    }
    tenants_.Next(&entry, &tenant);
    Release(job);
  }
  return work;
}

void LaneQueue::Add(EmbedTask&& task, const Place& place,
                    std::shared_ptr<const PrefixCache::Hold> prefix, int64_t now) {
  const int64_t due = DueOf(task, now);
  Waiter waiter{std::move(task.done), std::move(task.cancellation), ToNanos(task.deadline), now};
  if (place.equal != nullptr) return Join(place.equal, std::move(waiter), task.tenant, due);

  Job* job = new Job;
  job->ids = std::move(task.token_ids);
  job->prefix = std::move(prefix);
  job->output = task.output;
  job->hash = place.hash;
  job->joinable = joinable_.try_emplace(place.hash, job).second;
  job->due = due;
  job->has_deadline = waiter.deadline != kNever;
  job->submitted = now;
  job->tenant = tenants_.Get(task.tenant);
  job->tenant->tokens += job->length();
  ++job->tenant->tasks;
  ++tasks_;
  mortal_ += waiter.mortal();
  tokens_ += job->length();
  job->waiters.push_back(std::move(waiter));
  LinkNewest(job);
  Push(job->tenant, due, job);
}

void LaneQueue::Join(Job* job, Waiter waiter, absl::string_view tenant_name, int64_t due) {
  if (observer_ != nullptr) observer_->OnJoined(lane_);
  if (job->state == Job::State::kRunning) {
    ++job->joined;
    ++joined_;
  } else {
    ++tasks_;
    mortal_ += waiter.mortal();
  }
  job->has_deadline |= waiter.deadline != kNever;
  job->waiters.push_back(std::move(waiter));
  if (job->state != Job::State::kQueued) return;
  // It goes when the first of its entries comes up; the others are stale from then on.
  Tenant* tenant = tenants_.Get(tenant_name);
  if (tenant != job->tenant || due < job->due) Push(tenant, due, job);
  job->due = std::min(job->due, due);
}

void LaneQueue::Push(Tenant* tenant, int64_t due, Job* job) {
  tenants_.Push(tenant, {due, next_number_++, job, job->length()});
  // Entries of jobs that were given up far back in the queue would add up without end.
  if (tenants_.entries() < purge_at_) return;
  tenants_.Purge([this](Job* other) {
    if (other->state == Job::State::kQueued) return true;
    Release(other);
    return false;
  });
  purge_at_ = std::max(kMinPurge, 2 * tenants_.entries());
}

void LaneQueue::LinkNewest(Job* job) {
  job->older = newest_;
  job->newer = nullptr;
  (newest_ == nullptr ? oldest_ : newest_->newer) = job;
  newest_ = job;
}

void LaneQueue::LinkOldest(Job* job) {
  job->older = nullptr;
  job->newer = oldest_;
  (oldest_ == nullptr ? newest_ : oldest_->older) = job;
  oldest_ = job;
}

void LaneQueue::Unlink(Job* job) {
  if (swept_ == job) swept_ = job->newer;
  (job->older == nullptr ? oldest_ : job->older->newer) = job->newer;
  (job->newer == nullptr ? newest_ : job->newer->older) = job->older;
}

void LaneQueue::Release(Job* job) {
  if (--job->entries == 0 && job->state == Job::State::kDone) delete job;
}

// Out of the queue's accounts, into a pass's. The lane's list still holds it.
void LaneQueue::Start(Job* job, int64_t now) {
  tasks_ -= static_cast<int64_t>(job->waiters.size());
  for (const Waiter& waiter : job->waiters) mortal_ -= waiter.mortal();
  tokens_ -= job->length();
  if (job->state == Job::State::kQueued) {
    job->tenant->tokens -= job->length();
    --job->tenant->tasks;
    job->tenant = nullptr;
  }
  job->state = Job::State::kRunning;
  job->started = now;
}

std::vector<Job*> LaneQueue::SealRetry(int64_t most_tokens, int64_t now, bool* held) {
  std::vector<Job*> batch;
  while (batch.empty() && !retry_.empty()) {
    int64_t tokens = 0;
    for (const Job* job : retry_.front()) {
      if (job->state == Job::State::kRetrying) tokens += job->length();
    }
    if (tokens > most_tokens && retry_.front().size() == 1) {
      *held = true;
      return {};
    }
    if (tokens > most_tokens) {
      const std::vector<Job*> group = std::move(retry_.front());
      retry_.pop_front();
      AddHalves(group);
      continue;
    }
    for (Job* job : retry_.front()) {
      if (job->state == Job::State::kRetrying && Prune(job, now, DropPoint::kQueue)) {
        Start(job, now);
        Unlink(job);
        batch.push_back(job);
      }
      Release(job);
    }
    retry_.pop_front();
  }
  return batch;
}

std::vector<Job*> LaneQueue::Seal(const Budget& budget, const CostModel& cost, int64_t now) {
  CostModel::Work work = budget.taken;
  const bool begun = work.tokens > 0;
  if (begun && has_returned()) return {};
  bool held = false;
  std::vector<Job*> batch = SealRetry(budget.most_tokens, now, &held);
  if (held || !batch.empty()) return batch;
  int misfits = 0;
  TaskQueue::Entry entry;
  Tenant* tenant;
  while (static_cast<int>(batch.size()) < budget.sequences && work.tokens < budget.tokens &&
         misfits < kMaxMisfits && tenants_.Next(&entry, &tenant)) {
    Job* job = entry.job;
    // In a long queue nothing of a job is in a cache. While this one is looked at, the next comes.
    Prefetch(tenants_.Peek());
    if (job->state != Job::State::kQueued || !Prune(job, now, DropPoint::kQueue)) {
      Release(job);
      continue;
    }
    const CostModel::Work with = job->AddTo(work);
    if (with.tokens > budget.most_tokens && !begun && batch.empty()) {
      tenants_.SetAside(tenant, entry, /*hold=*/true);
      break;
    }
    if ((begun || !batch.empty()) &&
        (with.tokens > budget.tokens || cost.PredictUs(with) > budget.us)) {
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
    PrefetchNeighbours(job);
  }
  for (Job* job : batch) Unlink(job);
  tenants_.EndRound();
  return batch;
}

void LaneQueue::TakeBack(Job* job) {
  job->state = Job::State::kRetrying;
  ++job->entries;
  joined_ -= std::exchange(job->joined, 0);
  tasks_ += static_cast<int64_t>(job->waiters.size());
  for (const Waiter& waiter : job->waiters) mortal_ += waiter.mortal();
  tokens_ += job->length();
  LinkOldest(job);
}

void LaneQueue::AddHalves(const std::vector<Job*>& jobs) {
  const auto middle = jobs.begin() + static_cast<std::ptrdiff_t>(jobs.size() / 2);
  if (middle != jobs.end()) retry_.emplace_front(middle, jobs.end());
  if (middle != jobs.begin()) retry_.emplace_front(jobs.begin(), middle);
}

void LaneQueue::Retry(const std::vector<Job*>& jobs) {
  for (auto it = jobs.rbegin(); it != jobs.rend(); ++it) TakeBack(*it);
  AddHalves(jobs);
}

void LaneQueue::PutBack(const std::vector<Job*>& jobs) {
  for (auto it = jobs.rbegin(); it != jobs.rend(); ++it) TakeBack(*it);
  retry_.push_front(jobs);
}

}  // namespace quiver
