#include "tools/client/stream_link.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tools/client/rpc_status.h"
#include "tools/client/wire.h"

namespace quiver::client {
namespace {

// What a server among others holds at least, and else what it answers in this time: it is never
// idle, and what a slow one holds at the end of a stream is soon done.
constexpr size_t kLeastItems = 128;
constexpr double kHeldSeconds = 2;
constexpr absl::Duration kRatePeriod = absl::Milliseconds(500);

}  // namespace

StreamLink::StreamLink(StreamLinkOwner* owner, Core* core, std::shared_ptr<Server> server)
    : owner_(*owner), core_(*core), server_(std::move(server)) {}

void StreamLink::Open(const v1::EmbedStreamStart& start, absl::Time deadline) {
  state_ = State::kOpening;
  half_closed_ = false;
  const std::shared_ptr<StreamLink> self = shared_from_this();
  StreamEvents events;
  events.written = [self] {
    self->writing_ = false;
    self->owner_.Pump();
  };
  events.response = [self](v1::EmbedStreamResponse response) {
    self->OnResponse(std::move(response));
  };
  events.closed = [self] { self->OnClosed(); };
  events.done = [self](const absl::Status& status) { self->OnDone(status); };
  call_ = core_.StartStream(server_, deadline, std::move(events));
  v1::EmbedStreamRequest message;
  *message.mutable_start() = start;
  writing_ = true;
  call_->Write(std::move(message));
}

bool StreamLink::HasRoom(bool alone) const {
  const size_t items = unanswered_.size();
  if (items == 0) return true;
  if (items >= limits_.max_items_in_flight() ||
      tokens_ >= static_cast<int64_t>(limits_.max_tokens_in_flight())) {
    return false;
  }
  return alone || items < kLeastItems || static_cast<double>(tokens_) < rate_ * kHeldSeconds;
}

void StreamLink::Feed(bool alone, absl::Time now) {
  if (state_ != State::kOpen || writing_ || !HasRoom(alone) || now < retry_at) return;
  const size_t room =
      std::max<size_t>(limits_.max_items_in_flight(), unanswered_.size() + 1) - unanswered_.size();
  std::vector<StreamItem> items = owner_.Take(room, now);
  if (items.empty()) return;
  v1::EmbedStreamRequest message;
  int64_t tokens = 0;
  for (StreamItem& item : items) {
    v1::Input* input = message.add_inputs();
    input->set_id(absl::StrCat(item.number));
    ToWire(item.input, input);
    tokens += item.tokens;
    ++item.sends;
    const uint64_t number = item.number;
    unanswered_.emplace(number, std::move(item));
  }
  tokens_ += tokens;
  server_->outstanding_tokens += tokens;
  writing_ = true;
  call_->Write(std::move(message));
}

void StreamLink::HalfClose() {
  if (state_ != State::kOpen || writing_) return;
  state_ = State::kHalfClosed;
  half_closed_ = true;
  call_->WritesDone();
}

std::vector<StreamItem> StreamLink::Cancel() {
  if (call_ != nullptr) call_->Cancel();
  return TakeUnanswered();
}

std::vector<StreamItem> StreamLink::TakeUnanswered() {
  std::vector<StreamItem> items;
  for (auto& [number, item] : unanswered_) items.push_back(std::move(item));
  unanswered_.clear();
  server_->outstanding_tokens -= std::exchange(tokens_, 0);
  // As they were written.
  std::sort(items.begin(), items.end(),
            [](const StreamItem& a, const StreamItem& b) { return a.number < b.number; });
  return items;
}

void StreamLink::CountAnswered(int64_t tokens) {
  answered_ += tokens;
  const absl::Time now = absl::Now();
  const absl::Duration time = now - period_;
  if (time < kRatePeriod) return;
  rate_ = static_cast<double>(answered_) / absl::ToDoubleSeconds(time);
  answered_ = 0;
  period_ = now;
}

void StreamLink::OnResponse(v1::EmbedStreamResponse response) {
  if (state_ == State::kOpening) {
    if (!owner_.OnAccepted(response.vector_space()).ok()) return;
    state_ = State::kOpen;
    limits_ = response.limits();
    // A server that does not tell its limits has none that a client need keep to.
    if (limits_.max_items_in_flight() == 0) limits_.set_max_items_in_flight(UINT32_MAX);
    if (limits_.max_tokens_in_flight() == 0) limits_.set_max_tokens_in_flight(INT64_MAX);
    period_ = absl::Now();
  }
  int64_t tokens = 0;
  for (v1::EmbedResult& result : *response.mutable_results()) {
    uint64_t number = 0;
    if (!absl::SimpleAtoi(result.id(), &number)) continue;
    const auto found = unanswered_.find(number);
    if (found == unanswered_.end()) continue;
    StreamItem item = std::move(found->second);
    unanswered_.erase(found);
    tokens += item.tokens;
    absl::StatusOr<Embedding> embedding = FromWire(std::move(result));
    if (!embedding.ok() && Retryable(embedding.status())) {
      retry_at = core_.servers().Failed(server_.get(), item.sends, embedding.status(), absl::Now());
    }
    owner_.OnResult(std::move(item), std::move(embedding));
  }
  if (tokens > 0) {
    failures = 0;
    core_.servers().Answered(server_.get());
    tokens_ -= tokens;
    server_->outstanding_tokens -= tokens;
    CountAnswered(tokens);
  }
  owner_.Pump();
}

void StreamLink::OnClosed() {
  state_ = State::kClosed;
  std::exchange(call_, nullptr)->Release();
}

void StreamLink::OnDone(const absl::Status& status) {
  state_ = State::kIdle;
  writing_ = false;
  owner_.OnEnd(this, status, half_closed_, TakeUnanswered());
}

}  // namespace quiver::client
