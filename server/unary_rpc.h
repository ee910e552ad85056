#ifndef QUIVER_SERVER_UNARY_RPC_H_
#define QUIVER_SERVER_UNARY_RPC_H_

#include <exception>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/embedder.h"
#include "google/protobuf/arena.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/grpc_status.h"
#include "server/message_parser.h"
#include "server/observed_request.h"
#include "server/rpc_context.h"
#include "server/wire.h"

namespace quiver {

// One unary RPC from the bytes of its request to those of its reply. Deletes itself when gRPC has
// done with it. Ends with one call of Reply or Fail, on any thread.
class UnaryRpc : public grpc::ServerUnaryReactor {
 public:
  // `observer` may be null; `context` and `reply` are the call's.
  UnaryRpc(RequestObserver* observer, Rpc rpc, grpc::CallbackServerContext* context,
           grpc::ByteBuffer* reply)
      : observed_(Observe(observer, rpc, context)), context_(*context), reply_(*reply) {
    TellTrace(observed_, context);
  }

  // Ends at once unless `admitted` is OK. Else parses the request and hands it, with its invalid
  // strings, to `handle`, which gives an absl::Status: unless it is OK that is the end. The request
  // lives as long as this.
  template <typename Request, typename Handle>
  void Run(const absl::Status& admitted, const grpc::ByteBuffer& bytes, Handle handle) {
    if (!admitted.ok()) return Fail(admitted);
    absl::Status status;
    try {
      auto* request = NewMessage<Request>();
      InvalidStrings invalid;
      status = ParseMessage(bytes, request, &invalid);
      if (status.ok()) status = CheckStrings(invalid);
      if (status.ok()) status = handle(*request, invalid);
    } catch (const std::exception& e) {
      status = absl::InternalError(e.what());
    }
    if (!status.ok()) Fail(status);
  }

  template <typename Message>
  Message* NewMessage() {
    return google::protobuf::Arena::CreateMessage<Message>(&arena_);
  }

  template <typename Response>
  void Reply(const Response& response) {
    bool owned = false;
    grpc::Status status = grpc::SerializationTraits<Response>::Serialize(response, &reply_, &owned);
    observed_.End(static_cast<absl::StatusCode>(status.error_code()));
    Finish(std::move(status));
  }

  void Fail(const absl::Status& status) {
    observed_.End(status.code());
    Finish(ToGrpcStatus(status));
  }

  const grpc::CallbackServerContext& context() const { return context_; }
  ObservedRequest& observed() { return observed_; }
  // Set when the client goes away or the deadline passes.
  std::shared_ptr<const CancellationFlag> cancellation() const { return cancellation_; }

 private:
  void OnCancel() override { cancellation_->Cancel(); }
  void OnDone() override { delete this; }

  ObservedRequest observed_;
  const grpc::CallbackServerContext& context_;
  grpc::ByteBuffer& reply_;
  google::protobuf::Arena arena_;
  const std::shared_ptr<CancellationFlag> cancellation_ = std::make_shared<CancellationFlag>();
};

}  // namespace quiver

#endif  // QUIVER_SERVER_UNARY_RPC_H_
