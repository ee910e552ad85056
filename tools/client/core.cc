#include "tools/client/core.h"

#include <utility>

namespace quiver::client {

struct Cancellation::State {
  absl::Mutex mutex;
  bool cancelled ABSL_GUARDED_BY(mutex) = false;
  uint64_t next ABSL_GUARDED_BY(mutex) = 0;
  std::map<uint64_t, std::function<void()>> watchers ABSL_GUARDED_BY(mutex);
};

Cancellation::Cancellation() : state_(std::make_shared<State>()) {}

void Cancellation::Cancel() {
  absl::MutexLock lock(&state_->mutex);
  state_->cancelled = true;
  // They post to a loop, which a watcher keeps until it is taken out.
  for (const auto& [id, watcher] : state_->watchers) watcher();
  state_->watchers.clear();
}

bool Cancellation::cancelled() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->cancelled;
}

Core::Core(ClientOptions options, EndpointFactory factory, Lookup lookup,
           const std::vector<Address>& addresses)
    : options_(std::move(options)), servers_(options_.retry, std::move(factory)) {
  servers_.Update(addresses);
  resolver_ = std::make_unique<Resolver>(
      options_.servers, std::move(lookup), options_.resolve_interval,
      [this](std::vector<Address> found) {
        loop_.Post([this, found = std::move(found)] { servers_.Update(found); });
      });
}

void Core::Shutdown() {
  resolver_.reset();
  loop_.Post([this] {
    shut_down_ = true;
    const auto cancels = std::move(cancels_);
    cancels_.clear();
    for (const auto& [id, cancel] : cancels) cancel();
  });
  // What was posted before this has begun by the end of the task; what it began is waited for.
  auto begun = std::make_shared<Promise<bool>>();
  loop_.Post([begun] { begun->Set(true); });
  begun->Take();
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &Core::Idle));
}

void Core::Opened() {
  absl::MutexLock lock(&mutex_);
  ++under_way_;
}

void Core::Closed() {
  absl::MutexLock lock(&mutex_);
  --under_way_;
}

uint64_t Core::Begin(std::function<void()> cancel) {
  Opened();
  const uint64_t id = next_id_++;
  if (shut_down_) {
    loop_.Post(std::move(cancel));
  } else {
    cancels_.emplace(id, std::move(cancel));
  }
  return id;
}

void Core::End(uint64_t id) {
  cancels_.erase(id);
  Closed();
}

std::function<void()> Core::Watch(const Cancellation& cancellation, std::function<void()> cancel) {
  const std::shared_ptr<Cancellation::State> state = cancellation.state_;
  absl::MutexLock lock(&state->mutex);
  if (state->cancelled) {
    loop_.Post(std::move(cancel));
    return [] {};
  }
  const uint64_t id = state->next++;
  state->watchers.emplace(id, [this, cancel = std::move(cancel)] { loop_.Post(cancel); });
  return [state, id] {
    absl::MutexLock state_lock(&state->mutex);
    state->watchers.erase(id);
  };
}

// Neither callback leaves its hold on the server to the thread that it is called on, which must not
// be the one that destroys a channel.
std::shared_ptr<UnaryCall> Core::Start(const std::shared_ptr<Server>& server,
                                       std::shared_ptr<const UnaryRequest> request,
                                       absl::Time deadline, int64_t tokens, UnaryDone done) {
  Opened();
  server->outstanding_tokens += tokens;
  return server->endpoint->Start(
      std::move(request), deadline,
      [this, server = server, tokens,
       done = std::move(done)](absl::StatusOr<UnaryReply> reply) mutable {
        loop_.Post([this, server = std::move(server), tokens, done = std::move(done),
                    reply = std::move(reply)]() mutable {
          server->outstanding_tokens -= tokens;
          done(std::move(reply));
          Closed();
        });
      });
}

StreamCall* Core::StartStream(const std::shared_ptr<Server>& server, absl::Time deadline,
                              StreamEvents events) {
  Opened();
  StreamEvents posted;
  posted.written = [this, written = std::move(events.written)] { loop_.Post(written); };
  posted.response = [this, take = std::move(events.response)](v1::EmbedStreamResponse response) {
    loop_.Post([take, response = std::move(response)]() mutable { take(std::move(response)); });
  };
  posted.closed = [this, closed = std::move(events.closed)] { loop_.Post(closed); };
  // The server is held until the stream has ended: it may be taken out of the set before.
  posted.done = [this, server = server,
                 done = std::move(events.done)](absl::Status status) mutable {
    loop_.Post([this, server = std::move(server), done = std::move(done),
                status = std::move(status)]() mutable {
      done(std::move(status));
      Closed();
    });
  };
  return server->endpoint->StartStream(deadline, std::move(posted));
}

}  // namespace quiver::client
