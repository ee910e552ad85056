// What a SchedulerCore takes, how long it says that will wait, and what it shows of itself.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/schedule/scheduler_core.h"

namespace quiver {
namespace {

// The wait attached to a refusal: at least a millisecond, at most a minute.
constexpr double kMinRetryUs = 1e3;
constexpr double kMaxRetryUs = 60e6;
// The same while no pass has been measured.
constexpr double kUnknownRetryUs = 100e3;

}  // namespace

absl::Status SchedulerCore::CheckTask(const EmbedTask& task) const {
  if (task.token_ids.empty()) return absl::InvalidArgumentError("a task without token ids");
  if (task.token_ids.size() > static_cast<size_t>(backend_.max_sequence_tokens)) {
    return absl::InvalidArgumentError(absl::StrCat("a task of ", task.token_ids.size(),
                                                   " tokens; the limit is ",
                                                   backend_.max_sequence_tokens));
  }
  if (task.output.dimensions < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("a task with ", task.output.dimensions, " dimensions"));
  }
  if (task.done == nullptr) return absl::InvalidArgumentError("a task without a callback");
  return absl::OkStatus();
}

absl::Status SchedulerCore::Refuse(Lane lane, absl::Status status) {
  if (observer_ != nullptr) observer_->OnDropped(lane, DropPoint::kAdmission, status.code());
  return status;
}

absl::Status SchedulerCore::Submit(EmbedTask&& task, Findings findings, int64_t now) {
  if (absl::Status s = CheckTask(task); !s.ok()) return s;
  if (draining_) {
    return Refuse(task.lane, absl::UnavailableError("the server takes no more work"));
  }
  LaneQueue& queue = lane(task.lane);
  const int64_t reused = findings.prefix == nullptr ? 0 : findings.prefix->use().reused();
  const LaneQueue::Place place = queue.Find(task, findings.hash, reused);
  const int64_t deadline = ToNanos(task.deadline);
  if (deadline != kNever) {
    if (deadline <= now) {
      return Refuse(task.lane, absl::DeadlineExceededError("the deadline has passed"));
    }
    const double wait_us =
        place.running() ? 0 : PredictWaitUs(task.lane, queue.TokensAhead(task, place, now));
    if (wait_us * 1e3 > static_cast<double>(deadline - now)) {
      return Refuse(task.lane,
                    absl::DeadlineExceededError(absl::StrCat(
                        "the predicted wait of ", static_cast<int64_t>(wait_us / 1e3),
                        " ms is beyond the deadline in ", (deadline - now) / 1'000'000, " ms")));
    }
  }
  if (const int64_t excess = queue.Excess(task, place); excess > 0) {
    double us = PredictWaitUs(task.lane, excess);
    if (us <= 0) us = kUnknownRetryUs;
    absl::Status status = absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", queue.tasks(), " tasks of ", queue.tokens(),
                     " tokens are waiting; the limits are ", options_.max_queued_tasks, " and ",
                     options_.max_queued_tokens));
    SetRetryDelay(&status, absl::Microseconds(std::clamp(us, kMinRetryUs, kMaxRetryUs)));
    return Refuse(task.lane, std::move(status));
  }
  queue.Add(std::move(task), place, std::move(findings.prefix), now);
  return absl::OkStatus();
}

// What `tokens` in sequences as of late take, in batches as large as may be: what a token took
// lately says little of a backlog if those passes were small.
double SchedulerCore::ComputeUs(double tokens) const {
  if (tokens <= 0) return 0;
  const double batches = std::max(1.0, tokens / batch_tokens_);
  if (recent_tokens_ <= 0) return batches * cost_.fixed_us() + tokens * cost_.token_us();
  const double token_us = cost_.token_us() + cost_.pair_us() * recent_pairs_ / recent_tokens_;
  return std::min(batches * cost_.fixed_us() + tokens * token_us,
                  tokens * recent_us_ / recent_tokens_);
}

// What is left of the passes that new work of a lane has to wait for.
double SchedulerCore::RunningUs(Lane which) const {
  double us = 0;
  for (int i = 0; i < kNumSeats; ++i) {
    const Seat& seat = seats_[i];
    if (seat.wanted == 0 || (which == Lane::kInteractive && i == kBack)) continue;
    us += seat.LeftUs();
  }
  if (prepared_.has_value() && (which == Lane::kBulk || prepared_->lane == which)) {
    us += cost_.PredictUs(prepared_->work);
  }
  return us;
}

// Interactive work goes before bulk work but for the latter's share.
double SchedulerCore::PredictWaitUs(Lane which, int64_t tokens_ahead) const {
  double tokens = static_cast<double>(tokens_ahead);
  if (which == Lane::kInteractive) {
    if (HasWork(Lane::kBulk)) tokens /= std::max(0.01, 1 - options_.bulk_share);
  } else {
    const double interactive = static_cast<double>(lane(Lane::kInteractive).tokens());
    tokens = std::min(tokens + interactive, tokens / std::max(0.01, options_.bulk_share));
  }
  return RunningUs(which) + ComputeUs(tokens);
}

QueueSnapshot SchedulerCore::Snapshot(int64_t now) const {
  QueueSnapshot out;
  for (int i = 0; i < kNumLanes; ++i) {
    const LaneQueue& queue = *lanes_[i];
    QueueSnapshot::LaneState& state = out.lanes[i];
    state.tasks = queue.tasks();
    state.tokens = queue.tokens();
    state.tenants = queue.tenants();
    state.largest_tenants = queue.LargestTenants(QueueSnapshot::kTenantsShown);
    if (queue.oldest() != kNever) {
      state.oldest_age = absl::Nanoseconds(std::max<int64_t>(0, now - queue.oldest()));
    }
    state.predicted_wait = absl::Microseconds(PredictWaitUs(static_cast<Lane>(i), queue.tokens()));
    if (prepared_.has_value() && prepared_->lane == static_cast<Lane>(i)) {
      for (const Job* job : prepared_->jobs) {
        state.tasks += static_cast<int64_t>(job->waiters.size());
        state.oldest_age = std::max(state.oldest_age,
                                    absl::Nanoseconds(std::max<int64_t>(0, now - job->submitted)));
      }
      state.tokens += prepared_->work.tokens;
    }
  }
  for (const Seat& seat : seats_) {
    if (!seat.taken) continue;
    QueueSnapshot::PassState pass;
    pass.lane = seat.lane;
    for (const Job* job : seat.jobs) {
      if (job != nullptr) pass.tasks += static_cast<int>(job->waiters.size());
    }
    pass.sequences = seat.sequences;
    pass.tokens = static_cast<int>(seat.work.tokens);
    pass.age = absl::Nanoseconds(now - seat.began);
    pass.device_time = absl::Nanoseconds(seat.spent_ns);
    pass.predicted = absl::Microseconds(seat.predicted_us);
    pass.overtaken = seat.overtaken;
    out.running_tasks += pass.tasks;
    out.running_tokens += pass.tokens;
    out.passes.push_back(pass);
  }
  for (const Finishing& finishing : finishing_) {
    for (const Job* job : finishing.seat.jobs) {
      if (job != nullptr) out.running_tasks += static_cast<int>(job->waiters.size());
    }
  }
  out.draining = draining_;
  out.cost_model = cost_;
  return out;
}

}  // namespace quiver
