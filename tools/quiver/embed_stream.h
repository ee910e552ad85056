#ifndef QUIVER_TOOLS_QUIVER_EMBED_STREAM_H_
#define QUIVER_TOOLS_QUIVER_EMBED_STREAM_H_

#include <memory>

#include "absl/status/status.h"
#include "quiver/client.h"
#include "tools/quiver/executor.h"
#include "tools/quiver/result_window.h"

namespace quiver {

// Feeds a source to a client's stream: one thread writes inputs, one reads results, the caller's
// puts them into the sink.
class EmbedStream {
 public:
  explicit EmbedStream(std::unique_ptr<client::EmbedStream> stream) : stream_(std::move(stream)) {}

  // Once. As Executor::Embed, for vectors of `dimensions`.
  absl::Status Run(int dimensions, InputSource* source, EmbeddingSink* sink);

 private:
  // Reads `source` and writes inputs until either ends; what cannot be sent gets its result at
  // once.
  void Write(InputSource* source);
  // Reads results until the stream ends.
  void Read(InputSource* source);

  const std::unique_ptr<client::EmbedStream> stream_;
  ResultWindow window_;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_EMBED_STREAM_H_
