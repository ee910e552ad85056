#include "server/embed_batch.h"

#include <algorithm>
#include <utility>

namespace quiver {
namespace {

// The queue's estimate may be of a wait that others' departure shortens.
constexpr absl::Duration kMinRetry = absl::Milliseconds(2);
constexpr absl::Duration kMaxRetry = absl::Milliseconds(200);

}  // namespace

absl::Status EmbedBatch::Submit(size_t index, TokenizedInput&& input) {
  const Options& o = options();
  return o.embedder->Submit(*o.plan, std::move(input), o.submit,
                            [self = shared_from_this(), index](absl::StatusOr<Embedding> result) {
                              self->OnResult(index, std::move(result));
                            });
}

void EmbedBatch::OnSlice(size_t begin, std::vector<absl::StatusOr<TokenizedInput>> ids) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!ids[i].ok()) {
      OnResult(begin + i, ids[i].status());
      continue;
    }
    OnTokens(begin + i, static_cast<int>(ids[i]->ids.size()));
    absl::Status status = Submit(begin + i, *std::move(ids[i]));
    if (status.ok()) {
      queued_any_ = true;
    } else if (absl::IsResourceExhausted(status) && waiting_room_ != nullptr) {
      absl::MutexLock lock(&mutex_);
      refused_.push_back({begin + i, *std::move(ids[i])});
    } else {
      OnResult(begin + i, std::move(status));
    }
  }
}

void EmbedBatch::OnEnd(absl::Duration spent) {
  std::deque<Refused> refused;
  {
    absl::MutexLock lock(&mutex_);
    refused.swap(refused_);
  }
  if (refused.empty()) return OnFed(spent);
  waiting_room_->Add(options().submit.lane,
                     [self = shared_from_this(), spent, refused = std::move(refused)]() mutable {
                       const absl::Duration wait = self->TryAgain(&refused);
                       if (wait == WorkPool::kFinished) self->OnFed(spent);
                       return wait;
                     });
}

absl::Duration EmbedBatch::TryAgain(std::deque<Refused>* refused) {
  for (; !refused->empty(); refused->pop_front()) {
    Refused& first = refused->front();
    absl::Status status = StillWanted();
    if (status.ok()) status = Submit(first.index, std::move(first.input));
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
