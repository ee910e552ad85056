#include "server/embed_batch.h"

#include <algorithm>
#include <utility>

namespace quiver {
namespace {

// The queue's estimate may be of a wait that others' departure shortens.
constexpr absl::Duration kMinRetry = absl::Milliseconds(2);
constexpr absl::Duration kMaxRetry = absl::Milliseconds(200);

}  // namespace

Embedder::DoneCallback EmbedBatch::OnDone(size_t index) {
  return [self = shared_from_this(), index](absl::StatusOr<Embedding> result) {
    self->OnResult(index, std::move(result));
  };
}

void EmbedBatch::OnSlice(size_t begin, std::vector<absl::StatusOr<TokenizedInput>> ids) {
  std::vector<Embedder::Item> items;
  std::vector<size_t> indices;
  for (size_t i = 0; i < ids.size(); ++i) {
    const size_t index = begin + i;
    if (!ids[i].ok()) {
      OnResult(index, ids[i].status());
      continue;
    }
    OnTokens(index, static_cast<int>(ids[i]->ids.size()));
    items.push_back({*std::move(ids[i]), OnDone(index)});
    indices.push_back(index);
  }
  if (items.empty()) return;
  const Options& o = options();
  std::vector<absl::Status> statuses =
      o.embedder->SubmitMany(*o.plan, absl::MakeSpan(items), o.submit);
  for (size_t i = 0; i < statuses.size(); ++i) {
    if (statuses[i].ok()) {
      queued_any_ = true;
    } else if (absl::IsResourceExhausted(statuses[i]) && waiting_room_ != nullptr) {
      absl::MutexLock lock(&mutex_);
      refused_.push_back({indices[i], std::move(items[i].input)});
    } else {
      OnResult(indices[i], std::move(statuses[i]));
    }
  }
}

void EmbedBatch::OnEnd() {
  std::deque<Refused> refused;
  {
    absl::MutexLock lock(&mutex_);
    refused.swap(refused_);
  }
  if (refused.empty()) return OnFed();
  waiting_room_->Add(options().submit.lane,
                     [self = shared_from_this(), refused = std::move(refused)]() mutable {
                       const absl::Duration wait = self->TryAgain(&refused);
                       if (wait == WorkPool::kFinished) self->OnFed();
                       return wait;
                     });
}

absl::Duration EmbedBatch::TryAgain(std::deque<Refused>* refused) {
  for (; !refused->empty(); refused->pop_front()) {
    Refused& first = refused->front();
    absl::Status status = StillWanted();
    if (status.ok()) {
      const Options& o = options();
      status = o.embedder->Submit(*o.plan, std::move(first.input), o.submit, OnDone(first.index));
    }
    if (absl::IsResourceExhausted(status)) {
      return std::clamp(RetryDelay(status), kMinRetry, kMaxRetry);
    }
    if (status.ok()) {
      queued_any_ = true;
    } else {
      OnResult(first.index, std::move(status));
    }
  }
  return WorkPool::kFinished;
}

}  // namespace quiver
