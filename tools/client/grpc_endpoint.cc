#include "tools/client/grpc_endpoint.h"

#include <atomic>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/grpcpp.h"
#include "quiver/v1/embed.grpc.pb.h"
#include "tools/client/channel.h"
#include "tools/client/rpc_status.h"

namespace quiver::client {
namespace {

void SetDeadline(absl::Time deadline, grpc::ClientContext* context) {
  if (deadline != absl::InfiniteFuture()) context->set_deadline(absl::ToChronoTime(deadline));
}

// A server that is shut down in haste cancels its calls.
absl::Status ToStatus(const grpc::Status& status, bool cancelled_here) {
  if (status.error_code() == grpc::StatusCode::CANCELLED && !cancelled_here) {
    return absl::UnavailableError("the server cancelled the call");
  }
  return FromGrpcStatus(status);
}

class GrpcUnaryCall : public UnaryCall, public std::enable_shared_from_this<GrpcUnaryCall> {
 public:
  GrpcUnaryCall(std::shared_ptr<const UnaryRequest> request, absl::Time deadline, UnaryDone done)
      : request_(std::move(request)), done_(std::move(done)) {
    context_ = std::make_unique<grpc::ClientContext>();
    SetDeadline(deadline, context_.get());
  }

  void Start(v1::EmbedService::Stub* stub) {
    self_ = shared_from_this();
    if (const auto* embed = std::get_if<v1::EmbedRequest>(request_.get())) {
      auto* response = &reply_.emplace<v1::EmbedResponse>();
      stub->async()->Embed(context_.get(), embed, response,
                           [this](const grpc::Status& status) { End(status); });
    } else {
      auto* response = &reply_.emplace<v1::ModelInfo>();
      stub->async()->GetModelInfo(context_.get(), &std::get<v1::GetModelInfoRequest>(*request_),
                                  response, [this](const grpc::Status& status) { End(status); });
    }
  }

  void Cancel() override {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }

 private:
  void End(const grpc::Status& status) {
    const std::shared_ptr<GrpcUnaryCall> self = std::move(self_);
    absl::Status outcome;
    {
      absl::MutexLock lock(&mutex_);
      outcome = ToStatus(status, cancelled_);
      context_.reset();
    }
    UnaryDone done = std::move(done_);
    if (outcome.ok()) {
      done(std::move(reply_));
    } else {
      done(std::move(outcome));
    }
  }

  const std::shared_ptr<const UnaryRequest> request_;
  UnaryReply reply_;
  UnaryDone done_;
  // Until the call has ended.
  std::shared_ptr<GrpcUnaryCall> self_;
  absl::Mutex mutex_;
  std::unique_ptr<grpc::ClientContext> context_ ABSL_GUARDED_BY(mutex_);
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

// Owns itself until OnDone. The hold keeps gRPC from ending it between two calls of its user.
class GrpcStreamCall
    : public StreamCall,
      public grpc::ClientBidiReactor<v1::EmbedStreamRequest, v1::EmbedStreamResponse> {
 public:
  GrpcStreamCall(absl::Time deadline, StreamEvents events) : events_(std::move(events)) {
    SetDeadline(deadline, &context_);
  }

  void Start(v1::EmbedService::Stub* stub) {
    stub->async()->EmbedStream(&context_, this);
    AddHold();
    StartRead(&response_);
    StartCall();
  }

  void Write(v1::EmbedStreamRequest message) override {
    request_ = std::move(message);
    StartWrite(&request_);
  }
  void WritesDone() override { StartWritesDone(); }
  void Cancel() override {
    cancelled_ = true;
    context_.TryCancel();
  }
  void Release() override { RemoveHold(); }

 private:
  void OnWriteDone(bool) override { events_.written(); }
  void OnReadDone(bool ok) override {
    if (!ok) {
      events_.closed();
      return;
    }
    events_.response(std::exchange(response_, {}));
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) override {
    absl::AnyInvocable<void(absl::Status)> done = std::move(events_.done);
    absl::Status outcome = ToStatus(status, cancelled_);
    delete this;
    done(std::move(outcome));
  }

  grpc::ClientContext context_;
  StreamEvents events_;
  std::atomic<bool> cancelled_{false};
  v1::EmbedStreamRequest request_;
  v1::EmbedStreamResponse response_;
};

class GrpcEndpoint : public Endpoint {
 public:
  explicit GrpcEndpoint(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(v1::EmbedService::NewStub(channel)) {}

  std::shared_ptr<UnaryCall> Start(std::shared_ptr<const UnaryRequest> request, absl::Time deadline,
                                   UnaryDone done) override {
    auto call = std::make_shared<GrpcUnaryCall>(std::move(request), deadline, std::move(done));
    call->Start(stub_.get());
    return call;
  }
  StreamCall* StartStream(absl::Time deadline, StreamEvents events) override {
    auto* call = new GrpcStreamCall(deadline, std::move(events));
    call->Start(stub_.get());
    return call;
  }

 private:
  const std::unique_ptr<v1::EmbedService::Stub> stub_;
};

}  // namespace

EndpointFactory GrpcEndpoints(ConnectionOptions options) {
  return [options = std::move(options)](const Address& address) {
    return std::make_unique<GrpcEndpoint>(NewChannel(address.target, address.name, options));
  };
}

}  // namespace quiver::client
