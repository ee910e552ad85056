#include "engine/schedule/scheduler_core.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace quiver {
namespace {

// Waiting jobs are looked through for cancelled and expired ones at this pace: 100,000 in less than
// half a second, for a hundredth of the thread's time.
constexpr int kSweepJobs = 256;
constexpr int64_t kSweepInterval = 1'000'000;
// After a long step no more than this many intervals are made up for at once.
constexpr int64_t kMaxSweepIntervals = 16;

// Steps' worth of credit that bulk work needs to run between two steps of an interactive pass.
constexpr int kStepsAmidPass = 4;
// Part of the device's time for a long interactive pass beside short ones.
constexpr double kLongShare = 0.5;
// A short pass may overtake one that has this many times its predicted time to go.
constexpr double kOvertakeRatio = 4;
// A batch is allowed this many times a pass's fixed cost, so that most of its time is work.
constexpr double kFixedCosts = 8;
// What a pass leaves of the weight of earlier ones in the measured throughput.
constexpr double kThroughputDecay = 0.9;

}  // namespace

SchedulerCore::SchedulerCore(const Scheduler::Options& options, const BackendInfo& backend,
                             SchedulerObserver* observer)
    : options_(options),
      backend_(backend),
      batch_tokens_(options.max_batch_tokens > 0
                        ? std::min(options.max_batch_tokens, backend.max_batch_tokens)
                        : backend.max_batch_tokens),
      observer_(observer),
      cost_(options.cost_model) {
  for (int i = 0; i < kNumLanes; ++i) {
    lanes_[i] =
        std::make_unique<LaneQueue>(static_cast<Lane>(i), options_, observer_, &completions_);
  }
}

SchedulerCore::~SchedulerCore() = default;

bool SchedulerCore::HasWork(Lane which) const {
  if (!lane(which).empty()) return true;
  for (const Seat& seat : seats_) {
    if (seat.taken && seat.lane == which) return true;
  }
  return false;
}

bool SchedulerCore::BulkIsOwed(int steps) const {
  return HasWork(Lane::kBulk) &&
         bulk_credit_us_ >=
             steps * (1 - options_.bulk_share) * static_cast<double>(options_.step_budget_us);
}

double SchedulerCore::InteractiveBudgetUs() const {
  return std::max(absl::ToDoubleMicroseconds(options_.interactive_batch_time),
                  kFixedCosts * cost_.fixed_us());
}

SchedulerCore::Action SchedulerCore::Next(int64_t now) {
  if (now - last_sweep_ >= kSweepInterval) {
    const int64_t intervals = std::min((now - last_sweep_) / kSweepInterval, kMaxSweepIntervals);
    last_sweep_ = now;
    for (auto& queue : lanes_) queue->Sweep(now, static_cast<int>(intervals) * kSweepJobs);
  }
  Action action;
  for (int i = 0; i < kNumSeats; ++i) {
    if (seats_[i].taken && !DropUnwanted(i, now)) {
      seats_[i] = Seat();
      action.kind = Action::Kind::kAbandon;
      action.seat = i;
      return action;
    }
  }
  const Seat& front = seats_[kFront];
  const Seat& back = seats_[kBack];
  if (back.taken && back.lane == Lane::kBulk) {
    if (BulkIsOwed(front.taken ? kStepsAmidPass : 1) && HasWork(Lane::kInteractive)) {
      return Run(kBack);
    }
  } else if (!back.taken && BulkIsOwed(front.taken ? kStepsAmidPass : 1)) {
    if (BeginBulk(now, &action)) return action;
  }
  if (!front.taken && BeginInteractive(now, &action)) return action;
  if (front.taken) {
    const bool back_turn = back.taken && back.lane == Lane::kInteractive &&
                           back_credit_us_ >= static_cast<double>(options_.step_budget_us) / 2;
    return Run(back_turn ? kBack : kFront);
  }
  if (back.taken) return Run(kBack);
  if (BeginBulk(now, &action)) return action;
  return action;
}

SchedulerCore::Action SchedulerCore::Run(int seat) {
  if (last_run_ >= 0 && last_run_ != seat) {
    Seat& other = seats_[last_run_];
    if (other.taken && other.spent_ns > 0) ++other.overtaken;
  }
  last_run_ = seat;
  contended_ = HasWork(Lane::kInteractive) && HasWork(Lane::kBulk);
  Action action;
  action.kind = Action::Kind::kRun;
  action.seat = seat;
  action.max_us = options_.step_budget_us;
  return action;
}

int SchedulerCore::TokenLimit() const {
  const bool second = seats_[kFront].taken || seats_[kBack].taken;
  return second && backend_.max_second_batch_tokens > 0 ? backend_.max_second_batch_tokens
                                                        : backend_.max_batch_tokens;
}

bool SchedulerCore::BeginInteractive(int64_t now, Action* action) {
  LaneQueue& queue = lane(Lane::kInteractive);
  if (queue.empty()) return false;
  const Seat& back = seats_[kBack];
  const int limit = TokenLimit();
  LaneQueue::Budget budget{std::min(batch_tokens_, limit), backend_.max_batch_sequences,
                           InteractiveBudgetUs(), limit};
  if (back.taken && back.lane == Lane::kInteractive) {
    const double left_us = back.predicted_us - static_cast<double>(back.spent_ns) / 1e3;
    budget.us = std::min(budget.us, left_us / kOvertakeRatio);
    const CostModel::Work head = queue.Head(now);
    if (head.tokens == 0 || cost_.PredictUs(head) > budget.us) return false;
  }
  std::vector<Job*> jobs = queue.Seal(budget, cost_, now);
  if (jobs.empty()) return false;
  CostModel::Work work;
  for (const Job* job : jobs) work = work.With(job->length());
  const bool is_long = cost_.PredictUs(work) > InteractiveBudgetUs();
  Occupy(is_long && !back.taken && !BulkIsOwed(1) ? kBack : kFront, Lane::kInteractive,
         std::move(jobs), now, action);
  return true;
}

bool SchedulerCore::BeginBulk(int64_t now, Action* action) {
  LaneQueue& queue = lane(Lane::kBulk);
  if (queue.empty()) return false;
  const double us = std::max(absl::ToDoubleMicroseconds(options_.bulk_batch_time),
                             kFixedCosts * cost_.fixed_us());
  const int limit = TokenLimit();
  std::vector<Job*> jobs = queue.Seal(
      {std::min(batch_tokens_, limit), backend_.max_batch_sequences, us, limit}, cost_, now);
  if (jobs.empty()) return false;
  Occupy(kBack, Lane::kBulk, std::move(jobs), now, action);
  return true;
}

void SchedulerCore::Occupy(int seat_number, Lane lane, std::vector<Job*> jobs, int64_t now,
                           Action* action) {
  Seat& seat = seats_[seat_number];
  seat = Seat();
  seat.taken = true;
  seat.lane = lane;
  seat.began = now;
  seat.sequences = seat.wanted = static_cast<int>(jobs.size());
  action->kind = Action::Kind::kBegin;
  action->seat = seat_number;
  for (const Job* job : jobs) seat.work = seat.work.With(job->length());
  action->batch.token_ids.reserve(static_cast<size_t>(seat.work.tokens));
  for (const Job* job : jobs) action->batch.Append(job->ids, job->output);
  seat.predicted_us = cost_.PredictUs(seat.work);
  seat.jobs = std::move(jobs);
  if (seat_number == kBack) back_credit_us_ = 0;
}

bool SchedulerCore::DropUnwanted(int seat_number, int64_t now) {
  Seat& seat = seats_[seat_number];
  for (Job*& job : seat.jobs) {
    if (job != nullptr && !lane(seat.lane).KeepRunning(job, now)) {
      job = nullptr;
      --seat.wanted;
    }
  }
  return seat.wanted > 0;
}

void SchedulerCore::Ran(int seat_number, int64_t spent_ns) {
  Seat& seat = seats_[seat_number];
  seat.spent_ns += spent_ns;
  const double us = static_cast<double>(spent_ns) / 1e3;
  if (!HasWork(Lane::kBulk)) {
    bulk_credit_us_ = 0;
  } else if (contended_) {
    bulk_credit_us_ +=
        (seat.lane == Lane::kInteractive ? options_.bulk_share : options_.bulk_share - 1) * us;
  } else if (bulk_credit_us_ > 0) {
    bulk_credit_us_ = std::max(0.0, bulk_credit_us_ - us);
  }
  if (seats_[kFront].taken && seats_[kBack].taken) {
    back_credit_us_ += seat_number == kFront ? kLongShare * us : (kLongShare - 1) * us;
  }
}

void SchedulerCore::Report(const Seat& seat, bool ok) {
  if (observer_ == nullptr) return;
  BatchReport report;
  report.lane = seat.lane;
  report.sequences = seat.sequences;
  report.tokens = static_cast<int>(seat.work.tokens);
  report.token_budget = batch_tokens_;
  report.duration = absl::Nanoseconds(seat.spent_ns);
  report.predicted = absl::Microseconds(seat.predicted_us);
  report.overtaken = seat.overtaken;
  report.ok = ok;
  observer_->OnBatch(report);
}

void SchedulerCore::Finished(int seat_number, std::vector<absl::StatusOr<EncodedVector>> results,
                             int64_t now) {
  Seat& seat = seats_[seat_number];
  if (results.size() != seat.jobs.size()) {
    Failed(seat_number,
           absl::InternalError(absl::StrCat("the backend gave ", results.size(), " results for ",
                                            seat.jobs.size(), " sequences")),
           now);
    return;
  }
  for (size_t i = 0; i < results.size(); ++i) {
    if (seat.jobs[i] != nullptr) {
      lane(seat.lane).Finish(seat.jobs[i], std::move(results[i]), now);
    }
  }
  const double us = static_cast<double>(seat.spent_ns) / 1e3;
  cost_.Observe(seat.work, us);
  recent_tokens_ = kThroughputDecay * recent_tokens_ + static_cast<double>(seat.work.tokens);
  recent_pairs_ = kThroughputDecay * recent_pairs_ + static_cast<double>(seat.work.pairs);
  recent_us_ = kThroughputDecay * recent_us_ + us;
  Report(seat, true);
  seat = Seat();
}

void SchedulerCore::Failed(int seat_number, const absl::Status& error, int64_t now) {
  Seat& seat = seats_[seat_number];
  Report(seat, false);
  const bool alone = seat.sequences == 1;
  std::erase(seat.jobs, nullptr);
  if (!alone) {
    lane(seat.lane).Retry(seat.jobs);
  } else if (!seat.jobs.empty()) {
    lane(seat.lane).Finish(seat.jobs[0], error, now);
  }
  seat = Seat();
}

void SchedulerCore::FailWaiting(const absl::Status& status, int64_t now) {
  for (auto& queue : lanes_) queue->FailAll(status, now);
}

void SchedulerCore::FailRunning(const absl::Status& status, int64_t now) {
  for (Seat& seat : seats_) {
    for (Job*& job : seat.jobs) {
      if (job != nullptr) lane(seat.lane).GiveUp(job, status, now);
      job = nullptr;
    }
    seat.wanted = 0;
  }
}

bool SchedulerCore::quiet() const {
  return std::all_of(lanes_.begin(), lanes_.end(), [](const auto& q) { return q->empty(); }) &&
         std::none_of(seats_.begin(), seats_.end(), [](const Seat& s) { return s.taken; });
}

bool SchedulerCore::idle() const {
  return std::all_of(lanes_.begin(), lanes_.end(), [](const auto& q) { return q->empty(); }) &&
         std::all_of(seats_.begin(), seats_.end(), [](const Seat& s) { return s.wanted == 0; }) &&
         completions_.empty() && undelivered_ == 0;
}

std::vector<Completion> SchedulerCore::TakeCompletions() {
  undelivered_ += completions_.size();
  return std::exchange(completions_, {});
}

}  // namespace quiver
