#include "tests/tools/client/fake_server.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace quiver::client {

class FakeServer::FakeCall : public UnaryCall, public std::enable_shared_from_this<FakeCall> {
 public:
  FakeCall(FakeServer* server, std::shared_ptr<const UnaryRequest> request, UnaryDone done)
      : server_(*server), request_(std::move(request)), done_(std::move(done)) {}

  void Start() {
    server_.Post([self = shared_from_this()](bool alive) { self->Run(alive); });
  }

  void Cancel() override {
    server_.PostUrgent([self = shared_from_this()](bool) {
      if (self->done_ == nullptr) return;
      {
        absl::MutexLock lock(&self->server_.mutex_);
        ++self->server_.counts_.cancelled;
      }
      self->End(absl::CancelledError("cancelled"));
    });
  }

 private:
  void Run(bool alive) {
    if (done_ == nullptr) return;
    if (!alive) {
      End(absl::UnavailableError("killed"));
    } else if (const auto* embed = std::get_if<v1::EmbedRequest>(request_.get())) {
      v1::EmbedResponse response;
      server_.CountRequest(embed->inputs_size());
      const absl::Status status = server_.Answer(embed->inputs(), response.mutable_results());
      response.mutable_vector_space()->set_fingerprint(server_.options_.fingerprint);
      status.ok() ? End(std::move(response)) : End(status);
    } else {
      v1::ModelInfo info;
      info.set_model("fake");
      info.mutable_limits()->set_max_items_per_request(
          static_cast<uint32_t>(server_.options_.max_items_per_request));
      info.mutable_limits()->set_max_message_bytes(1 << 20);
      End(std::move(info));
    }
  }
  void End(absl::StatusOr<UnaryReply> reply) {
    UnaryDone done = std::exchange(done_, nullptr);
    done(std::move(reply));
  }

  FakeServer& server_;
  const std::shared_ptr<const UnaryRequest> request_;
  UnaryDone done_;
};

// Its methods are called by the client, everything else runs on the server's thread.
class FakeServer::FakeStream : public StreamCall, public std::enable_shared_from_this<FakeStream> {
 public:
  FakeStream(FakeServer* server, StreamEvents events)
      : server_(*server), events_(std::move(events)) {}

  void Start() {
    server_.PostUrgent([self = shared_from_this()](bool alive) {
      self->server_.streams_.push_back(self);
      if (!alive) self->Break(absl::UnavailableError("killed"));
    });
  }

  void Write(v1::EmbedStreamRequest message) override {
    server_.PostUrgent([self = shared_from_this()](bool) { self->events_.written(); });
    server_.Post(
        [self = shared_from_this(), message = std::move(message)](bool) { self->Answer(message); });
  }
  void WritesDone() override {
    server_.Post([self = shared_from_this()](bool) { self->Break(absl::OkStatus()); });
  }
  void Cancel() override {
    server_.PostUrgent(
        [self = shared_from_this()](bool) { self->Break(absl::CancelledError("cancelled")); });
  }
  void Release() override {
    server_.PostUrgent([self = shared_from_this()](bool) {
      auto& streams = self->server_.streams_;
      streams.erase(std::find(streams.begin(), streams.end(), self));
      absl::AnyInvocable<void(absl::Status)> done = std::move(self->events_.done);
      self->events_ = {};
      done(self->status_);
    });
  }

  void Break(const absl::Status& status) {
    if (broken_) return;
    broken_ = true;
    status_ = status;
    events_.closed();
  }

 private:
  void Answer(const v1::EmbedStreamRequest& message) {
    if (broken_) return;
    v1::EmbedStreamResponse response;
    absl::Status status;
    if (message.has_start()) {
      response.mutable_vector_space()->set_fingerprint(server_.options_.fingerprint);
    } else {
      server_.CountRequest(message.inputs_size());
      status = server_.Answer(message.inputs(), response.mutable_results());
    }
    status.ok() ? events_.response(std::move(response)) : Break(status);
  }

  FakeServer& server_;
  StreamEvents events_;
  bool broken_ = false;
  absl::Status status_;
};

class FakeServer::FakeEndpoint : public Endpoint {
 public:
  explicit FakeEndpoint(FakeServer* server) : server_(*server) {}

  std::shared_ptr<UnaryCall> Start(std::shared_ptr<const UnaryRequest> request, absl::Time,
                                   UnaryDone done) override {
    auto call = std::make_shared<FakeCall>(&server_, std::move(request), std::move(done));
    call->Start();
    return call;
  }
  StreamCall* StartStream(absl::Time, StreamEvents events) override {
    auto stream = std::make_shared<FakeStream>(&server_, std::move(events));
    stream->Start();
    return stream.get();
  }

 private:
  FakeServer& server_;
};

FakeServer::FakeServer(Options options)
    : options_(std::move(options)), thread_([this] { Run(); }) {}

FakeServer::~FakeServer() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

std::unique_ptr<Endpoint> FakeServer::NewEndpoint() { return std::make_unique<FakeEndpoint>(this); }

void FakeServer::Kill() {
  PostUrgent([this](bool) {
    {
      absl::MutexLock lock(&mutex_);
      alive_ = false;
      stalled_ = false;
    }
    for (const auto& stream : streams_) stream->Break(absl::UnavailableError("killed"));
  });
}

void FakeServer::Revive() {
  PostUrgent([this](bool) {
    absl::MutexLock lock(&mutex_);
    alive_ = true;
  });
}

void FakeServer::Stall() {
  absl::MutexLock lock(&mutex_);
  stalled_ = true;
}

void FakeServer::AwaitRequests(int count) const {
  absl::MutexLock lock(&mutex_);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return counts_.requests >= count;
  };
  mutex_.Await(absl::Condition(&there));
}

void FakeServer::Post(Task task) {
  absl::MutexLock lock(&mutex_);
  tasks_.push_back(std::move(task));
}

void FakeServer::PostUrgent(Task task) {
  absl::MutexLock lock(&mutex_);
  urgent_.push_back(std::move(task));
}

void FakeServer::Run() {
  for (;;) {
    Task task;
    bool alive = false;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &FakeServer::Runnable));
      if (stop_) return;
      std::deque<Task>& queue = urgent_.empty() ? tasks_ : urgent_;
      task = std::move(queue.front());
      queue.pop_front();
      alive = alive_;
    }
    task(alive);
  }
}

void FakeServer::CountRequest(int items) {
  absl::MutexLock lock(&mutex_);
  ++counts_.requests;
  counts_.largest = std::max(counts_.largest, items);
  times_.push_back(absl::Now());
}

template <typename Inputs, typename Results>
absl::Status FakeServer::Answer(const Inputs& inputs, Results* results) {
  for (const v1::Input& input : inputs) {
    if (options_.item_time > absl::ZeroDuration()) absl::SleepFor(options_.item_time);
    v1::EmbedResult& result = *results->Add();
    result.set_id(input.id());
    const float value = static_cast<float>(input.text().size());
    v1::Embedding& embedding = *result.mutable_embedding();
    embedding.mutable_data()->assign(reinterpret_cast<const char*>(&value), sizeof(value));
    embedding.set_type(v1::OUTPUT_TYPE_FLOAT32);
    embedding.set_dimensions(1);
    embedding.set_token_count(static_cast<uint32_t>(input.text().size()));
    if (options_.on_input != nullptr) {
      if (absl::Status status = options_.on_input(input, &result); !status.ok()) return status;
    }
  }
  absl::MutexLock lock(&mutex_);
  counts_.items += inputs.size();
  return absl::OkStatus();
}

}  // namespace quiver::client
