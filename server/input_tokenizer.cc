#include "server/input_tokenizer.h"

#include <algorithm>
#include <exception>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quiver {
namespace {

// What an input weighs when a request is cut into slices. Ids need only be looked at.
int64_t Weight(const CallInput& input) {
  if (!input.status.ok()) return 1;
  if (const auto* text = std::get_if<absl::string_view>(&input.content)) {
    return 1 + static_cast<int64_t>(text->size());
  }
  return 1 + static_cast<int64_t>(std::get<absl::Span<const TokenId>>(input.content).size());
}

}  // namespace

absl::Status TokenizeJob::StillWanted() const {
  const Embedder::SubmitOptions& submit = options_.submit;
  const bool cancelled = submit.cancellation != nullptr && submit.cancellation->cancelled();
  if (absl::Now() + (cancelled ? kCancelledAtDeadline : absl::ZeroDuration()) >= submit.deadline) {
    return absl::DeadlineExceededError("the request's deadline has passed");
  }
  if (cancelled) return absl::CancelledError("the request was cancelled");
  return absl::OkStatus();
}

absl::StatusOr<TokenizedInput> TokenizeJob::TokenizeOne(const CallInput& input,
                                                        SchedulerObserver* observer) const {
  if (!input.status.ok()) return input.status;
  if (absl::Status status = StillWanted(); !status.ok()) {
    if (observer != nullptr) {
      observer->OnDropped(options_.submit.lane, DropPoint::kTokenizing, status.code());
    }
    return status;
  }
  try {
    return options_.embedder->Tokenize(*options_.plan, input.content);
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("tokenizing failed: ", e.what()));
  }
}

bool TokenizeJob::RunSlice(SchedulerObserver* observer) {
  const size_t slice = next_slice_.fetch_add(1);
  if (slice + 1 >= borders_.size()) return false;
  const size_t begin = borders_[slice];
  const size_t end = borders_[slice + 1];
  const absl::Time start = absl::Now();
  if (slice == 0) began_ = start;
  std::vector<absl::StatusOr<TokenizedInput>> ids;
  ids.reserve(end - begin);
  for (size_t i = begin; i < end; ++i) {
    ids.push_back(TokenizeOne(options_.inputs[i], observer));
  }
  const absl::Time now = absl::Now();
  spent_ns_.fetch_add(absl::ToInt64Nanoseconds(now - start));
  int64_t ended_ns = ended_ns_.load();
  while (ended_ns < absl::ToUnixNanos(now) &&
         !ended_ns_.compare_exchange_weak(ended_ns, absl::ToUnixNanos(now))) {
  }
  OnSlice(begin, std::move(ids));
  if (slices_left_.fetch_sub(1) == 1) OnEnd();
  return true;
}

InputTokenizer::InputTokenizer(Options options) : options_(options), pool_(options.threads) {}

void InputTokenizer::Start(std::shared_ptr<TokenizeJob> job) {
  int64_t total = 0;
  for (const CallInput& input : job->options_.inputs) total += Weight(input);
  const bool here = total <= options_.inline_bytes;

  job->borders_ = {0};
  int64_t weight = 0;
  for (size_t i = 0; i < job->size(); ++i) {
    weight += Weight(job->options_.inputs[i]);
    if (i + 1 == job->size() || (!here && weight >= options_.slice_bytes)) {
      job->borders_.push_back(i + 1);
      weight = 0;
    }
  }
  const size_t slices = job->borders_.size() - 1;
  job->slices_left_ = slices;
  if (slices == 0) {
    job->began_ = absl::Now();
    job->ended_ns_ = absl::ToUnixNanos(job->began_);
    return job->OnEnd();
  }
  if (here) {
    job->RunSlice(options_.observer);
    return;
  }
  const size_t workers = std::min(slices, static_cast<size_t>(pool_.threads()));
  for (size_t i = 0; i < workers; ++i) {
    pool_.Add(job->options_.submit.lane, [job, observer = options_.observer]() {
      return job->RunSlice(observer) ? absl::ZeroDuration() : WorkPool::kFinished;
    });
  }
}

}  // namespace quiver
