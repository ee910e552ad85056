// EmbedService of embed.proto over gRPC's callback API.
#ifndef QUIVER_SERVER_EMBED_SERVICE_H_
#define QUIVER_SERVER_EMBED_SERVICE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "quiver/v1/embed.grpc.pb.h"
#include "server/api_keys.h"
#include "server/embed_call.h"
#include "server/message_parser.h"
#include "server/request_observer.h"
#include "server/served_model.h"
#include "server/unary_rpc.h"

namespace quiver {

// Methods get the bytes of a message rather than the message, so that they parse it on an arena and
// can forgive text that is not UTF-8. Every call ends by itself once the engine has ended its
// items: drain the embedder before the server is shut down.
class EmbedService : public v1::EmbedService::WithRawCallbackMethod_Embed<
                         v1::EmbedService::WithRawCallbackMethod_EmbedStream<
                             v1::EmbedService::WithRawCallbackMethod_Tokenize<
                                 v1::EmbedService::WithRawCallbackMethod_GetModelInfo<
                                     v1::EmbedService::Service>>>> {
 public:
  struct Options {
    // Told in ModelInfo and enforced here.
    int max_items_per_request = 10'000;
    // Told in ModelInfo; enforced by the server that this is registered with.
    int64_t max_message_bytes = 32 << 20;
    // A stream's unanswered items and tokens: enough for a few batches of a fast device.
    int max_stream_items = 4096;
    int64_t max_stream_tokens = 1 << 20;
    // For ModelInfo.
    std::string server_version;
    // Whose keys calls must have; null for anybody.
    std::shared_ptr<const ApiKeys> api_keys = nullptr;
  };

  // All must outlive this but `observer`, which may be null.
  EmbedService(Options options, const ServedModel* model, EmbedCalls* calls,
               RequestObserver* observer)
      : options_(std::move(options)), model_(*model), calls_(*calls), observer_(observer) {}

  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* EmbedStream(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response) override;

 private:
  // Reply to `rpc`, now or later, unless they return an error.
  absl::Status StartEmbed(const v1::EmbedRequest& request, const InvalidStrings& invalid,
                          UnaryRpc* rpc);
  absl::Status StartTokenize(const v1::TokenizeRequest& request, const InvalidStrings& invalid,
                             UnaryRpc* rpc);
  absl::Status ReplyModelInfo(const v1::GetModelInfoRequest& request, UnaryRpc* rpc);
  // The inputs of a unary request with what holds for all of them.
  absl::StatusOr<TokenizeJob::Options> MakeJob(
      const std::string& model, const v1::EmbedOptions& options,
      const google::protobuf::RepeatedPtrField<v1::Input>& inputs, const InvalidStrings& invalid,
      UnaryRpc* rpc);

  const Options options_;
  const ServedModel& model_;
  EmbedCalls& calls_;
  RequestObserver* const observer_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_EMBED_SERVICE_H_
