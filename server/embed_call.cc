#include "server/embed_call.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "engine/field_error.h"
#include "server/embed_batch.h"

namespace quiver {
namespace {

class EmbedCall : public EmbedBatch {
 public:
  EmbedCall(Options options, std::optional<EmbedCalls::AllOrNothing> whole, absl::Time arrival,
            EmbedCalls::Callback done, WorkPool* replies)
      : EmbedBatch(std::move(options), /*waiting_room=*/nullptr),
        whole_(std::move(whole)),
        arrival_(arrival),
        done_(std::move(done)),
        replies_(replies),
        parts_left_(size() + 1) {
    results_.resize(size(), absl::UnknownError("no result"));
  }

 private:
  void OnTokens(size_t, int tokens) override {
    if (!whole_.has_value() || tokens_.fetch_add(tokens) + tokens <= whole_->max_tokens) return;
    GiveUp({std::nullopt,
            FieldError(
                whole_->input_key,
                absl::StrCat("must have at most ", whole_->max_tokens,
                             " tokens in all, as more are never queued; it has more than that"))});
  }

  void OnResult(size_t index, absl::StatusOr<Embedding> result) override {
    // What was cancelled is no reason but follows from one, or the client went away.
    const bool ends = whole_.has_value() && !result.ok() && !absl::IsCancelled(result.status());
    results_[index] = std::move(result);
    if (ends) GiveUp({index, absl::OkStatus()});
    OnPart();
  }

  // Why an all-or-nothing request ended: one of its inputs, or the request itself.
  struct Reason {
    std::optional<size_t> input;
    absl::Status whole;
  };

  // The first reason counts: others follow from it.
  void GiveUp(Reason reason) {
    absl::MutexLock lock(&mutex_);
    if (reason_.has_value()) return;
    reason_ = std::move(reason);
    whole_->cancellation->Cancel();
  }

  void OnFed() override { OnPart(); }

  // A result of each input, and that all are fed: then the call is complete.
  void OnPart() {
    if (parts_left_.fetch_sub(1) > 1) return;
    replies_->Add(options().submit.lane, [self = shared_from_this(), this] {
      Complete();
      return WorkPool::kFinished;
    });
  }

  void Complete() {
    EmbedReply reply;
    absl::Status status = StillWanted();
    {
      absl::MutexLock lock(&mutex_);
      if (reason_.has_value()) {
        reply.failed_input = reason_->input;
        status = reason_->whole;
      }
    }
    if (status.ok() && !queued_any()) status = Refusal();
    if (!status.ok()) return done_(std::move(status));
    reply.plan = options().plan;
    reply.report = Report();
    reply.results = std::move(results_);
    done_(std::move(reply));
  }

  // Why the queue took nothing, if that is the reason; the longest wait it asked for.
  absl::Status Refusal() const {
    absl::Status worst;
    for (const absl::StatusOr<Embedding>& result : results_) {
      const absl::Status& status = result.status();
      if (!absl::IsResourceExhausted(status) && !absl::IsUnavailable(status)) continue;
      if (worst.ok() || RetryDelay(status) > RetryDelay(worst)) worst = status;
    }
    return worst;
  }

  RequestReport Report() const {
    RequestReport report;
    report.lane = options().submit.lane;
    report.model = options().embedder->info().name;
    report.total = absl::Now() - arrival_;
    report.tokenize = spent();
    report.timeline.tokenize_began = began();
    report.timeline.tokenize_ended = ended();
    for (const absl::StatusOr<Embedding>& result : results_) {
      if (!result.ok()) {
        report.CountFailure(result.status());
        continue;
      }
      ++report.succeeded;
      report.truncated += result->truncated ? 1 : 0;
      report.tokens += result->token_count;
      report.queue = std::max(report.queue, result->queue_time);
      report.compute = std::max(report.compute, result->compute_time);
      report.timeline.Add(*result);
    }
    return report;
  }

  const std::optional<EmbedCalls::AllOrNothing> whole_;
  const absl::Time arrival_;
  EmbedCalls::Callback done_;
  WorkPool* const replies_;
  std::vector<absl::StatusOr<Embedding>> results_;
  std::atomic<size_t> parts_left_;
  std::atomic<int64_t> tokens_{0};
  absl::Mutex mutex_;
  std::optional<Reason> reason_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

void EmbedCalls::Start(TokenizeJob::Options job, absl::Time arrival, Callback done) {
  tokenizer_.Start(std::make_shared<EmbedCall>(std::move(job), std::nullopt, arrival,
                                               std::move(done), &replies_));
}

void EmbedCalls::StartWhole(TokenizeJob::Options job, AllOrNothing whole, absl::Time arrival,
                            Callback done) {
  job.submit.cancellation = whole.cancellation;
  tokenizer_.Start(std::make_shared<EmbedCall>(std::move(job), std::move(whole), arrival,
                                               std::move(done), &replies_));
}

}  // namespace quiver
