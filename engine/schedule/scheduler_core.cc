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
// The next batch is prepared when a pass has this much left to go, and this part of the whole: what
// packing takes, and how far off the prediction may be.
constexpr double kPrepareAheadUs = 1000;
constexpr double kPrepareAheadPart = 1.0 / 8;
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
  if (!lane(which).empty() || (prepared_.has_value() && prepared_->lane == which)) return true;
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
  // Not between two passes, when the device waits.
  if (now - last_sweep_ >= kSweepInterval && AnySeatTaken()) {
    const int64_t intervals = std::min((now - last_sweep_) / kSweepInterval, kMaxSweepIntervals);
    last_sweep_ = now;
    for (auto& queue : lanes_) queue->Sweep(now, static_cast<int>(intervals) * kSweepJobs);
    if (prepared_.has_value()) PrunePrepared(now);
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
      return Run(kBack, now);
    }
  } else if (!back.taken && BulkIsOwed(front.taken ? kStepsAmidPass : 1)) {
    if (BeginBulk(now, &action)) return action;
  }
  if (!front.taken && BeginInteractive(now, &action)) return action;
  if (front.taken) {
    const bool back_turn = back.taken && back.lane == Lane::kInteractive &&
                           back_credit_us_ >= static_cast<double>(options_.step_budget_us) / 2;
    return Run(back_turn ? kBack : kFront, now);
  }
  if (back.taken) return Run(kBack, now);
  if (BeginBulk(now, &action)) return action;
  return action;
}

SchedulerCore::Action SchedulerCore::Run(int seat, int64_t now) {
  if (last_run_ >= 0 && last_run_ != seat) {
    Seat& other = seats_[last_run_];
    if (other.taken && other.spent_ns > 0) ++other.overtaken;
  }
  last_run_ = seat;
  contended_ = HasWork(Lane::kInteractive) && HasWork(Lane::kBulk);
  Seat& running = seats_[seat];
  running.running = true;
  if (prepared_.has_value()) {
    prepare_at_ = kNever;
  } else {
    const double ahead_us = std::max(kPrepareAheadUs, running.predicted_us * kPrepareAheadPart);
    prepare_at_ = now + static_cast<int64_t>(std::max(0.0, running.LeftUs() - ahead_us) * 1e3);
  }
  Action action;
  action.kind = Action::Kind::kRun;
  action.seat = seat;
  action.max_us = options_.step_budget_us;
  return action;
}

int SchedulerCore::TokenLimit(bool second) const {
  return second && backend_.max_second_batch_tokens > 0 ? backend_.max_second_batch_tokens
                                                        : backend_.max_batch_tokens;
}

LaneQueue::Budget SchedulerCore::BudgetOf(Lane which, bool second) const {
  const int limit = TokenLimit(second);
  const double us = which == Lane::kInteractive
                        ? InteractiveBudgetUs()
                        : std::max(absl::ToDoubleMicroseconds(options_.bulk_batch_time),
                                   kFixedCosts * cost_.fixed_us());
  return {std::min(batch_tokens_, limit), backend_.max_batch_sequences, us, limit};
}

void SchedulerCore::PrunePrepared(int64_t now) {
  LaneQueue& queue = lane(prepared_->lane);
  std::erase_if(prepared_->jobs, [&](Job* job) {
    const CostModel::Work work = job->AddTo({});
    if (queue.KeepRunning(job, now, DropPoint::kQueue)) return false;
    prepared_->work.tokens -= work.tokens;
    prepared_->work.pairs -= work.pairs;
    prepared_->pruned = true;
    return true;
  });
  if (prepared_->jobs.empty()) prepared_.reset();
}

void SchedulerCore::PutBackPrepared() {
  if (!prepared_.has_value()) return;
  lane(prepared_->lane).PutBack(prepared_->jobs);
  prepared_.reset();
}

std::vector<Job*> SchedulerCore::TakeBatch(Lane which, const LaneQueue::Budget& budget, int64_t now,
                                           Action::Prepared* what) {
  LaneQueue& queue = lane(which);
  if (!prepared_.has_value() || prepared_->lane != which) return queue.Seal(budget, cost_, now);
  *what = Action::Prepared::kDiscard;
  PrunePrepared(now);
  // What has room alone may have none beside another pass.
  if (prepared_.has_value() && prepared_->work.tokens > budget.most_tokens) PutBackPrepared();
  if (!prepared_.has_value()) return queue.Seal(budget, cost_, now);
  Prepared prepared = *std::exchange(prepared_, std::nullopt);
  std::vector<Job*> more;
  if (prepared.open && !queue.empty()) {
    LaneQueue::Budget rest = budget;
    rest.taken = prepared.work;
    rest.sequences -= static_cast<int>(prepared.jobs.size());
    more = queue.Seal(rest, cost_, now);
  }
  if (!prepared.pruned && more.empty()) *what = Action::Prepared::kUse;
  prepared.jobs.insert(prepared.jobs.end(), more.begin(), more.end());
  return std::move(prepared.jobs);
}

bool SchedulerCore::BeginInteractive(int64_t now, Action* action) {
  LaneQueue& queue = lane(Lane::kInteractive);
  const bool prepared = prepared_.has_value() && prepared_->lane == Lane::kInteractive;
  if (queue.empty() && !prepared) return false;
  const Seat& back = seats_[kBack];
  LaneQueue::Budget budget = BudgetOf(Lane::kInteractive, AnySeatTaken());
  if (back.taken && back.lane == Lane::kInteractive) {
    budget.us = std::min(budget.us, back.LeftUs() / kOvertakeRatio);
    if (prepared) PutBackPrepared();
    const CostModel::Work head = queue.Head(now);
    if (head.tokens == 0 || cost_.PredictUs(head) > budget.us) return false;
  }
  std::vector<Job*> jobs = TakeBatch(Lane::kInteractive, budget, now, &action->prepared);
  if (jobs.empty()) return false;
  CostModel::Work work;
  for (const Job* job : jobs) work = job->AddTo(work);
  const bool is_long = cost_.PredictUs(work) > InteractiveBudgetUs();
  Occupy(is_long && !back.taken && !BulkIsOwed(1) ? kBack : kFront, Lane::kInteractive,
         std::move(jobs), now, action);
  return true;
}

bool SchedulerCore::BeginBulk(int64_t now, Action* action) {
  const bool prepared = prepared_.has_value() && prepared_->lane == Lane::kBulk;
  if (lane(Lane::kBulk).empty() && !prepared) return false;
  std::vector<Job*> jobs =
      TakeBatch(Lane::kBulk, BudgetOf(Lane::kBulk, AnySeatTaken()), now, &action->prepared);
  if (jobs.empty()) return false;
  Occupy(kBack, Lane::kBulk, std::move(jobs), now, action);
  return true;
}

bool SchedulerCore::NextLane(int running, Lane* which) const {
  const bool other = seats_[1 - running].taken;
  const bool interactive = !lane(Lane::kInteractive).empty();
  const bool bulk = !lane(Lane::kBulk).empty();
  // A long interactive pass in the back seat lets only short ones by, of which it is not known yet
  // how short they must be.
  if (running == kFront && other) {
    *which = Lane::kInteractive;
    return interactive && seats_[kBack].lane == Lane::kBulk;
  }
  if (running == kBack && other) {
    *which = Lane::kBulk;
    return bulk;
  }
  *which = interactive && !(bulk && BulkIsOwed(1)) ? Lane::kInteractive : Lane::kBulk;
  return interactive || bulk;
}

std::optional<SchedulerCore::Preparation> SchedulerCore::Prepare(int64_t now) {
  prepare_at_ = kNever;
  if (prepared_.has_value() || last_run_ < 0) return std::nullopt;
  const Seat& running = seats_[last_run_];
  Lane which;
  if (!running.taken || !running.running || !NextLane(last_run_, &which)) return std::nullopt;
  LaneQueue& queue = lane(which);
  // What is left of a failed pass stays alone.
  const bool returned = queue.has_returned();
  std::vector<Job*> jobs = queue.Seal(BudgetOf(which, seats_[1 - last_run_].taken), cost_, now);
  if (jobs.empty()) return std::nullopt;
  Prepared& prepared = prepared_.emplace();
  prepared.lane = which;
  prepared.open = !returned && queue.empty();
  Preparation out;
  out.seat = last_run_;
  for (const Job* job : jobs) prepared.work = job->AddTo(prepared.work);
  out.batch.token_ids.reserve(static_cast<size_t>(prepared.work.tokens));
  for (const Job* job : jobs) job->AppendTo(&out.batch);
  prepared.jobs = std::move(jobs);
  return out;
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
  for (Job* job : jobs) {
    job->started = now;
    seat.work = job->AddTo(seat.work);
    if (job->prefix != nullptr) seat.prefixes.push_back(job->prefix);
  }
  action->batch.token_ids.reserve(static_cast<size_t>(seat.work.tokens));
  for (const Job* job : jobs) job->AppendTo(&action->batch);
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

void SchedulerCore::Ran(int seat_number, int64_t spent_ns, int64_t gap_ns) {
  Seat& seat = seats_[seat_number];
  seat.spent_ns += spent_ns;
  if (gap_ns >= 0) seat.gap_ns = gap_ns;
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

BatchShape SchedulerCore::ShapeOf(const Seat& seat) const {
  return {.sequences = seat.sequences,
          .tokens = static_cast<int>(seat.work.tokens),
          .token_budget = batch_tokens_};
}

void SchedulerCore::Report(const Seat& seat, bool ok) {
  if (observer_ == nullptr) return;
  BatchReport report;
  report.lane = seat.lane;
  static_cast<BatchShape&>(report) = ShapeOf(seat);
  report.duration = absl::Nanoseconds(seat.spent_ns);
  report.predicted = absl::Microseconds(seat.predicted_us);
  report.share = absl::Microseconds(cost_.PredictShareUs(seat.work, batch_tokens_));
  for (const auto& prefix : seat.prefixes) {
    report.prefix_hits += prefix->use().reused() > 0;
    report.prefix_tokens += prefix->use().reused();
  }
  if (seat.gap_ns >= 0) report.gap = absl::Nanoseconds(seat.gap_ns);
  report.overtaken = seat.overtaken;
  report.ok = ok;
  observer_->OnBatch(report);
}

uint64_t SchedulerCore::Complete(int seat_number) {
  Seat& seat = seats_[seat_number];
  const double us = static_cast<double>(seat.spent_ns) / 1e3;
  cost_.Observe(seat.work, us);
  recent_tokens_ = kThroughputDecay * recent_tokens_ + static_cast<double>(seat.work.tokens);
  recent_pairs_ = kThroughputDecay * recent_pairs_ + static_cast<double>(seat.work.pairs);
  recent_us_ = kThroughputDecay * recent_us_ + us;
  finishing_.push_back({next_number_, std::exchange(seat, Seat())});
  return next_number_++;
}

void SchedulerCore::Finished(uint64_t number, absl::StatusOr<Results> results, int64_t now) {
  const auto it = std::find_if(finishing_.begin(), finishing_.end(),
                               [&](const Finishing& f) { return f.number == number; });
  Seat seat = std::move(it->seat);
  finishing_.erase(it);
  if (results.ok() && results->size() != seat.jobs.size()) {
    results = absl::InternalError(absl::StrCat("the backend gave ", results->size(),
                                               " results for ", seat.jobs.size(), " sequences"));
  }
  if (!results.ok()) return Fail(std::move(seat), results.status(), now);
  for (size_t i = 0; i < results->size(); ++i) {
    Job* job = seat.jobs[i];
    if (job == nullptr) continue;
    if (job->prefix != nullptr && job->prefix->use().store && (*results)[i].ok()) {
      job->prefix->Stored();
    }
    lane(seat.lane).Finish(job, std::move((*results)[i]), ShapeOf(seat), now);
  }
  Report(seat, true);
}

void SchedulerCore::Failed(int seat_number, const absl::Status& error, int64_t now) {
  Fail(std::exchange(seats_[seat_number], Seat()), error, now);
}

void SchedulerCore::Fail(Seat seat, const absl::Status& error, int64_t now) {
  Report(seat, false);
  const bool alone = seat.sequences == 1;
  std::erase(seat.jobs, nullptr);
  if (!alone) {
    lane(seat.lane).Retry(seat.jobs);
  } else if (!seat.jobs.empty()) {
    lane(seat.lane).Finish(seat.jobs[0], error, ShapeOf(seat), now);
  }
}

void SchedulerCore::FailWaiting(const absl::Status& status, int64_t now) {
  PutBackPrepared();
  for (auto& queue : lanes_) queue->FailAll(status, now);
}

void SchedulerCore::FailRunning(const absl::Status& status, int64_t now) {
  const auto give_up = [&](Seat& seat) {
    for (Job*& job : seat.jobs) {
      if (job != nullptr) lane(seat.lane).GiveUp(job, status, now);
      job = nullptr;
    }
    seat.wanted = 0;
  };
  for (Seat& seat : seats_) give_up(seat);
  for (Finishing& finishing : finishing_) give_up(finishing.seat);
}

bool SchedulerCore::quiet() const {
  return !prepared_.has_value() &&
         std::all_of(lanes_.begin(), lanes_.end(), [](const auto& q) { return q->empty(); }) &&
         std::none_of(seats_.begin(), seats_.end(), [](const Seat& s) { return s.taken; });
}

bool SchedulerCore::idle() const {
  return !prepared_.has_value() &&
         std::all_of(finishing_.begin(), finishing_.end(),
                     [](const Finishing& f) { return f.seat.wanted == 0; }) &&
         std::all_of(lanes_.begin(), lanes_.end(), [](const auto& q) { return q->empty(); }) &&
         std::all_of(seats_.begin(), seats_.end(), [](const Seat& s) { return s.wanted == 0; }) &&
         completions_.empty() && undelivered_ == 0;
}

std::vector<Completion> SchedulerCore::TakeCompletions() {
  undelivered_ += completions_.size();
  return std::exchange(completions_, {});
}

}  // namespace quiver
