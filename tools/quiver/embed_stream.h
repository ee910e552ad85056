#ifndef QUIVER_TOOLS_QUIVER_EMBED_STREAM_H_
#define QUIVER_TOOLS_QUIVER_EMBED_STREAM_H_

#include <atomic>
#include <memory>

#include "absl/status/status.h"
#include "grpcpp/grpcpp.h"
#include "quiver/v1/embed.grpc.pb.h"
#include "tools/quiver/executor.h"
#include "tools/quiver/result_window.h"
#include "tools/quiver/wire.h"

namespace quiver {

// The client's end of one EmbedStream: one thread writes inputs, one reads results, the caller's
// puts them into the sink.
class EmbedStream {
 public:
  // `limits` are the server's.
  EmbedStream(v1::EmbedService::Stub* stub, const v1::Limits& limits);

  // Opens the stream. Returns once the server has accepted the options.
  absl::Status Start(const WorkOptions& options);

  // After Start returned OK, once. As Executor::Embed, for vectors of `dimensions`.
  absl::Status Run(int dimensions, InputSource* source, EmbeddingSink* sink);

 private:
  // A message that is being filled.
  struct Outgoing {
    v1::EmbedStreamRequest message;
    size_t text_bytes = 0;
  };

  // Reads `source` and writes messages until either ends.
  void Write(InputSource* source);
  // Adds an item; what cannot be sent gets its result at once. False if the window is closed or the
  // stream is broken.
  bool Add(InputItem&& item, Outgoing* outgoing);
  // Sends what there is. False if the stream is broken.
  bool Send(Outgoing* outgoing);
  // Reads results until the stream ends.
  void Read(InputSource* source);

  v1::EmbedService::Stub* const stub_;
  const MessageBudget budget_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::EmbedStreamRequest, v1::EmbedStreamResponse>>
      stream_;
  ResultWindow window_;
  // Whether the whole source has been written.
  std::atomic<bool> all_written_{false};
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_EMBED_STREAM_H_
