#include "tools/client/stream_core.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "tools/client/rpc_status.h"

namespace quiver::client {
namespace {

// How long an input waits for others to fill its message.
constexpr absl::Duration kLinger = absl::Milliseconds(1);

}  // namespace

StreamCore::StreamCore(Core* core, const EmbedOptions& options, const StreamOptions& stream)
    : core_(*core), options_(stream) {
  start_.set_model(options.model);
  *start_.mutable_options() = ToWire(options);
}

void StreamCore::Start() {
  const std::shared_ptr<StreamCore> self = shared_from_this();
  id_ = core_.Begin([self] { self->End(absl::CancelledError("the client was destroyed")); });
  deadline_timer_ = core_.loop().PostAt(options_.deadline, [self] {
    self->End(absl::DeadlineExceededError("the deadline passed before the end of the stream"));
  });
  info_call_ =
      FetchInfo(&core_, options_.deadline, &info_tries_, [self](const absl::Status& status) {
        if (!status.ok()) {
          self->End(status);
          return;
        }
        self->budget_.emplace(self->core_.info()->limits());
        self->Pump();
      });
}

void StreamCore::AddLinks() {
  for (const std::shared_ptr<Server>& server : core_.servers().all()) {
    const bool known = std::any_of(links_.begin(), links_.end(), [&](const auto& link) {
      return &link->server() == server.get();
    });
    if (!known) links_.push_back(std::make_shared<StreamLink>(this, &core_, server));
  }
  // A server that is gone is left once its stream has ended.
  std::erase_if(links_, [&](const std::shared_ptr<StreamLink>& link) {
    const auto& all = core_.servers().all();
    return link->idle() && std::none_of(all.begin(), all.end(), [&](const auto& server) {
             return server.get() == &link->server();
           });
  });
}

void StreamCore::Pump() {
  if (ended_ || !budget_.has_value()) return;
  AddLinks();
  std::vector<StreamLink*> links;
  for (const auto& link : links_) links.push_back(link.get());
  std::sort(links.begin(), links.end(), [](const StreamLink* a, const StreamLink* b) {
    return a->server().outstanding_tokens < b->server().outstanding_tokens;
  });
  // One time for all of this: what is not due yet for the links is seen to below.
  const absl::Time now = absl::Now();
  for (StreamLink* link : links) link->Feed(links.size() == 1, now);
  if (ended_) return;

  bool waiting = !returned_.empty();
  bool all_written = false;
  {
    absl::MutexLock lock(&mutex_);
    waiting |= Due(now);
    all_written = writes_done_ && written_.empty();
    if (!written_.empty() && !Due(now)) PumpAt(oldest_ + kLinger);
  }
  for (StreamLink* link : links) {
    if (waiting && !link->idle() && link->retry_at > now) PumpAt(link->retry_at);
  }
  if (waiting || !space_.has_value()) {
    OpenLink(now);
  } else if (all_written) {
    bool open = false;
    for (StreamLink* link : links) {
      link->HalfClose();
      open |= !link->idle();
    }
    if (!open) End(absl::OkStatus());
  }
}

void StreamCore::OpenLink(absl::Time now) {
  StreamLink* best = nullptr;
  absl::Time soonest = absl::InfiniteFuture();
  for (const auto& link : links_) {
    // One after another: the first may be enough.
    if (link->opening()) return;
    if (!link->idle()) continue;
    const absl::Time when = std::max({now, link->retry_at, link->server().down_until});
    if (best == nullptr || when < soonest ||
        (when == soonest &&
         link->server().outstanding_tokens < best->server().outstanding_tokens)) {
      best = link.get();
      soonest = when;
    }
  }
  if (best == nullptr) return;
  if (soonest > now) {
    PumpAt(soonest);
  } else {
    best->Open(start_, options_.deadline);
  }
}

void StreamCore::PumpAt(absl::Time time) {
  if (pump_timer_.first > absl::Now() && pump_timer_.first <= time) return;
  core_.loop().Cancel(pump_timer_);
  pump_timer_ = core_.loop().PostAt(time, [self = shared_from_this()] { self->Pump(); });
}

std::optional<StreamItem> StreamCore::NextItem() {
  std::optional<StreamItem> item;
  if (!returned_.empty()) {
    item = std::move(returned_.front());
    returned_.pop_front();
    return item;
  }
  absl::MutexLock lock(&mutex_);
  if (written_.empty()) return item;
  item = std::move(written_.front());
  written_.pop_front();
  oldest_ = absl::Now();
  return item;
}

bool StreamCore::Due(absl::Time now) const {
  return !written_.empty() &&
         (writes_done_ || written_.size() >= kGoodMessageItems || now >= oldest_ + kLinger);
}

std::vector<StreamItem> StreamCore::Take(size_t max_items, absl::Time now) {
  {
    absl::MutexLock lock(&mutex_);
    if (returned_.empty() && !Due(now)) return {};
  }
  std::vector<StreamItem> items;
  size_t bytes = 0;
  while (items.size() < max_items) {
    std::optional<StreamItem> item = NextItem();
    if (!item.has_value()) break;
    const size_t next = ContentBytes(item->input);
    if (absl::Status fits = budget_->Check(next); !fits.ok()) {
      Deliver(*item, std::move(fits));
      continue;
    }
    if (budget_->Full(items.size(), bytes, next)) {
      returned_.push_front(*std::move(item));
      break;
    }
    bytes += next;
    items.push_back(*std::move(item));
  }
  return items;
}

absl::Status StreamCore::OnAccepted(const v1::VectorSpace& space) {
  if (ended_) return absl::CancelledError("the stream has ended");
  if (!space_.has_value()) {
    space_ = FromWire(space);
    opened_.Set(absl::OkStatus());
    return absl::OkStatus();
  }
  absl::Status same = CheckSameSpace(*space_, space);
  if (!same.ok()) End(same);
  return same;
}

void StreamCore::OnResult(StreamItem item, absl::StatusOr<Embedding> result) {
  if (!result.ok() && Retryable(result.status())) {
    Return(std::move(item), result.status());
  } else {
    Deliver(item, std::move(result));
  }
}

void StreamCore::OnEnd(StreamLink* link, const absl::Status& status, bool half_closed,
                       std::vector<StreamItem> items) {
  // Once it is idle, nobody else may hold it.
  const std::shared_ptr<StreamCore> self = shared_from_this();
  if (ended_) {
    CheckIdle();
    return;
  }
  if (status.ok() && half_closed) {
    for (const StreamItem& item : items) {
      Deliver(item, absl::InternalError("the server sent no result for this input"));
    }
  } else if (Retryable(status)) {
    const absl::Status named = Named(link->server(), status);
    ++link->failures;
    link->retry_at = core_.servers().Failed(&link->server(), link->failures, status, absl::Now());
    for (auto item = items.rbegin(); item != items.rend(); ++item) {
      Return(std::move(*item), named);
    }
    if (std::all_of(links_.begin(), links_.end(), [&](const auto& other) {
          return other->failures >= core_.options().retry.max_tries;
        })) {
      End(named);
    }
  } else {
    for (StreamItem& item : items) returned_.push_back(std::move(item));
    End(status.ok() ? absl::InternalError("the server ended the stream before the end of the input")
                    : status);
  }
  Pump();
}

void StreamCore::Return(StreamItem item, const absl::Status& status) {
  if (item.sends >= options_.max_sends) {
    Deliver(item, status);
  } else {
    returned_.push_front(std::move(item));
  }
}

void StreamCore::Deliver(const StreamItem& item, absl::StatusOr<Embedding> result) {
  absl::MutexLock lock(&mutex_);
  results_.emplace_back(StreamResult{item.key, std::move(result)}, item.tokens);
}

void StreamCore::End(const absl::Status& status) {
  if (ended_) return;
  ended_ = true;
  const std::shared_ptr<StreamCore> self = shared_from_this();
  if (info_call_ != nullptr) info_call_->Cancel();
  core_.loop().Cancel(pump_timer_);
  core_.loop().Cancel(deadline_timer_);
  for (const auto& link : links_) {
    for (StreamItem& item : link->Cancel()) returned_.push_back(std::move(item));
  }
  if (!space_.has_value()) opened_.Set(status);
  {
    absl::MutexLock lock(&mutex_);
    for (const std::deque<StreamItem>* items : {&returned_, &written_}) {
      for (const StreamItem& item : *items) {
        results_.emplace_back(StreamResult{item.key, status, /*stream_failed=*/true}, item.tokens);
      }
    }
    written_.clear();
    end_ = status;
  }
  returned_.clear();
  CheckIdle();
}

void StreamCore::CheckIdle() {
  for (const auto& link : links_) {
    if (!link->idle()) return;
  }
  absl::MutexLock lock(&mutex_);
  if (!idle_) core_.End(id_);
  idle_ = true;
}

}  // namespace quiver::client
