// What a stream's user calls, on threads of their own.
#include "quiver/client_stream.h"

#include <utility>

#include "absl/time/clock.h"
#include "tools/client/stream_core.h"

namespace quiver::client {

absl::Status StreamCore::Open() {
  core_.loop().Post([self = shared_from_this()] { self->Start(); });
  return opened_.Take();
}

bool StreamCore::HasRoom(int64_t tokens) const {
  return end_.has_value() || items_in_flight_ == 0 ||
         (items_in_flight_ < options_.max_items_in_flight &&
          tokens_in_flight_ + tokens <= options_.max_tokens_in_flight);
}

bool StreamCore::Write(Input input, uint64_t key) {
  StreamItem item{.input = std::move(input), .key = key};
  item.tokens = EstimateTokens(item.input);
  absl::MutexLock lock(&mutex_);
  const auto room = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return HasRoom(item.tokens); };
  mutex_.Await(absl::Condition(&room));
  if (end_.has_value() || writes_done_) return false;
  ++items_in_flight_;
  tokens_in_flight_ += item.tokens;
  item.number = next_number_++;
  if (written_.empty()) oldest_ = absl::Now();
  written_.push_back(std::move(item));
  if (written_.size() == 1 || written_.size() % kGoodMessageItems == 0) PostPump();
  return true;
}

void StreamCore::WritesDone() {
  absl::MutexLock lock(&mutex_);
  writes_done_ = true;
  PostPump();
}

void StreamCore::PostPump() {
  if (pump_posted_) return;
  pump_posted_ = true;
  core_.loop().Post([self = shared_from_this()] {
    {
      absl::MutexLock lock(&self->mutex_);
      self->pump_posted_ = false;
    }
    self->Pump();
  });
}

bool StreamCore::Read(StreamResult* result) {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &StreamCore::Readable));
  if (results_.empty()) return false;
  --items_in_flight_;
  tokens_in_flight_ -= results_.front().second;
  *result = std::move(results_.front().first);
  results_.pop_front();
  return true;
}

absl::Status StreamCore::Finish() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](std::optional<absl::Status>* end) { return end->has_value(); }, &end_));
  return *end_;
}

void StreamCore::Cancel() {
  core_.loop().Post(
      [self = shared_from_this()] { self->End(absl::CancelledError("the stream was cancelled")); });
}

void StreamCore::AwaitIdle() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &StreamCore::Settled));
}

EmbedStream::EmbedStream(std::shared_ptr<StreamCore> core) : core_(std::move(core)) {}
EmbedStream::~EmbedStream() {
  core_->Cancel();
  core_->AwaitIdle();
}
bool EmbedStream::Write(Input input, uint64_t key) { return core_->Write(std::move(input), key); }
void EmbedStream::WritesDone() { core_->WritesDone(); }
bool EmbedStream::Read(StreamResult* result) { return core_->Read(result); }
absl::Status EmbedStream::Finish() { return core_->Finish(); }
void EmbedStream::Cancel() { core_->Cancel(); }
const VectorSpace& EmbedStream::space() const { return core_->space(); }

}  // namespace quiver::client
