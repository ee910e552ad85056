#ifndef QUIVER_SERVER_EMBED_STREAM_H_
#define QUIVER_SERVER_EMBED_STREAM_H_

#include <cstdint>

#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/api_keys.h"
#include "server/embed_call.h"
#include "server/request_observer.h"
#include "server/served_model.h"

namespace quiver {

using ByteStreamReactor = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

struct EmbedStreamOptions {
  int max_items_per_message = 0;
  // No further message is read while so many items, or so many tokens, have been read and their
  // results not yet been taken by the client's transport: with one message more this bounds what a
  // stream holds, also of a client that does not read.
  int max_items_in_flight = 0;
  int64_t max_tokens_in_flight = 0;
  // Whose keys the call must have; null for anybody. Must outlive the RPC.
  const ApiKeys* api_keys = nullptr;
};

// One EmbedStream RPC, which lives until gRPC has done with it. Items that the full queue refuses
// wait, and the stream with them. `observer` may be null; all must outlive the RPC.
ByteStreamReactor* StartEmbedStream(const EmbedStreamOptions& options, const ServedModel* model,
                                    EmbedCalls* calls, RequestObserver* observer,
                                    grpc::CallbackServerContext* context);

}  // namespace quiver

#endif  // QUIVER_SERVER_EMBED_STREAM_H_
