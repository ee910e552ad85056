#include "server/span_exporter.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace quiver {

using Kind = SpanSender::Result::Kind;

SpanExporter::SpanExporter(Options options, OtlpEncoder encoder, std::unique_ptr<SpanSender> sender,
                           Logger* logger)
    : options_(options),
      encoder_(std::move(encoder)),
      sender_(std::move(sender)),
      logger_(*logger),
      thread_([this] { Run(); }) {}

SpanExporter::~SpanExporter() { Stop(absl::Now()); }

void SpanExporter::Add(const RequestReport& report) {
  const size_t spans = OtlpEncoder::NumSpans(report);
  auto copy = std::make_unique<const RequestReport>(report);
  absl::MutexLock lock(&mutex_);
  if (stopping_ || queued_spans_ + spans > options_.max_queued_spans) {
    dropped_ += static_cast<int64_t>(spans);
    return;
  }
  const bool was_full = IsFull();
  queue_.push_back(std::move(copy));
  queued_spans_ += spans;
  if (IsFull() && !was_full) wake_.Signal();
}

void SpanExporter::Stop(absl::Time deadline) {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    stop_at_ = std::min(stop_at_, deadline);
    wake_.Signal();
  }
  if (thread_.joinable()) thread_.join();
}

void SpanExporter::Run() {
  while (true) {
    const Requests requests = Take();
    if (requests.empty()) return;
    Export(requests);
  }
}

SpanExporter::Requests SpanExporter::Take() {
  absl::MutexLock lock(&mutex_);
  bool waited = false;
  while (!stopping_ && !IsFull() && (queue_.empty() || !waited)) {
    waited = wake_.WaitWithTimeout(&mutex_, options_.interval);
  }
  if (absl::Now() >= stop_at_) {
    dropped_ += static_cast<int64_t>(std::exchange(queued_spans_, 0));
    queue_.clear();
  }
  Requests requests;
  size_t spans = 0;
  while (!queue_.empty() && spans < options_.max_message_spans) {
    spans += OtlpEncoder::NumSpans(*queue_.front());
    requests.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  queued_spans_ -= spans;
  return requests;
}

void SpanExporter::Export(const Requests& requests) {
  int64_t spans = 0;
  for (const auto& request : requests) {
    spans += static_cast<int64_t>(OtlpEncoder::NumSpans(*request));
  }
  const std::string body = encoder_.Encode(requests);
  for (int tries = 1;; ++tries) {
    const absl::Time timeout = absl::Now() + options_.send_timeout;
    const SpanSender::Result result = sender_->Send(body, [this, timeout] {
      absl::MutexLock lock(&mutex_);
      return std::min(timeout, stop_at_);
    });
    LogState(result);
    if (result.kind == Kind::kSent) {
      const int64_t rejected = std::clamp<int64_t>(result.rejected_spans, 0, spans);
      exported_ += spans - rejected;
      failed_ += rejected;
      return;
    }
    if (!WaitToRetry(result, tries)) {
      failed_ += spans;
      return;
    }
  }
}

bool SpanExporter::WaitToRetry(const SpanSender::Result& result, int tries) {
  if (result.kind != Kind::kTryAgain || tries >= options_.max_tries) return false;
  absl::Duration wait = options_.first_wait;
  for (int i = 1; i < tries && wait < options_.max_wait; ++i) wait *= 2;
  wait = std::min(wait, options_.max_wait) * absl::Uniform(random_, 0.5, 1.0);
  // A collector may not hold spans here for good.
  wait = std::max(wait, std::min(result.retry_after, options_.max_wait));
  absl::MutexLock lock(&mutex_);
  if (stopping_) return false;
  // Who stops gets one more try, at once.
  const absl::Time end = absl::Now() + wait;
  while (!stopping_ && !wake_.WaitWithDeadline(&mutex_, end)) {
  }
  return true;
}

void SpanExporter::LogState(const SpanSender::Result& result) {
  const bool failing = result.kind != Kind::kSent;
  if (failing == failing_) return;
  failing_ = failing;
  if (failing) {
    logger_.Warning("traces cannot be exported", {{"error", result.error}});
  } else {
    logger_.Info("traces are exported again");
  }
}

}  // namespace quiver
