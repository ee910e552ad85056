#include "server/embed_call.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/time/clock.h"
#include "server/embed_batch.h"

namespace quiver {
namespace {

class EmbedCall : public EmbedBatch {
 public:
  EmbedCall(Options options, absl::Time arrival, EmbedCalls::Callback done, WorkPool* replies)
      : EmbedBatch(std::move(options), /*waiting_room=*/nullptr),
        arrival_(arrival),
        done_(std::move(done)),
        replies_(replies),
        parts_left_(size() + 1) {
    results_.resize(size(), absl::UnknownError("no result"));
  }

 private:
  void OnResult(size_t index, absl::StatusOr<Embedding> result) override {
    results_[index] = std::move(result);
    OnPart();
  }

  void OnFed(absl::Duration tokenize) override {
    tokenize_ = tokenize;
    OnPart();
  }

  // A result of each input, and that all are fed: then the call is complete.
  void OnPart() {
    if (parts_left_.fetch_sub(1) > 1) return;
    replies_->Add(options().submit.lane, [self = shared_from_this(), this] {
      Complete();
      return WorkPool::kFinished;
    });
  }

  void Complete() {
    absl::Status whole = StillWanted();
    if (whole.ok() && !queued_any()) whole = Refusal();
    if (!whole.ok()) return done_(std::move(whole));
    EmbedReply reply;
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
    report.total = absl::Now() - arrival_;
    report.tokenize = tokenize_;
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
    }
    return report;
  }

  const absl::Time arrival_;
  EmbedCalls::Callback done_;
  WorkPool* const replies_;
  std::vector<absl::StatusOr<Embedding>> results_;
  absl::Duration tokenize_;
  std::atomic<size_t> parts_left_;
};

}  // namespace

void EmbedCalls::Start(TokenizeJob::Options job, absl::Time arrival, Callback done) {
  tokenizer_.Start(
      std::make_shared<EmbedCall>(std::move(job), arrival, std::move(done), &replies_));
}

}  // namespace quiver
