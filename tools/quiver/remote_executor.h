#ifndef QUIVER_TOOLS_QUIVER_REMOTE_EXECUTOR_H_
#define QUIVER_TOOLS_QUIVER_REMOTE_EXECUTOR_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "quiver/v1/embed.grpc.pb.h"
#include "tools/quiver/connection.h"
#include "tools/quiver/executor.h"

namespace quiver {

// A server, or several behind one name, over gRPC. Embedding is a stream of the client library;
// tokenizing is Tokenize after Tokenize.
class RemoteExecutor : public Executor {
 public:
  struct Options {
    // HOST:PORT.
    std::string server;
    ConnectionFlags connection = {};
    // How long to wait for a server that does not serve yet.
    absl::Duration wait;
  };
  explicit RemoteExecutor(Options options);

  absl::StatusOr<v1::ModelInfo> Describe() override;
  absl::Status Embed(const WorkOptions& options, InputSource* source, EmbeddingSink* sink) override;
  absl::Status Tokenize(const WorkOptions& options, InputSource* source, TokenSink* sink) override;

 private:
  // A server that is not there or went away is named.
  absl::Status Explain(const absl::Status& status) const;

  const Options options_;
  // Or why there is no stub.
  absl::StatusOr<client::ConnectionOptions> connection_;
  std::unique_ptr<v1::EmbedService::Stub> stub_;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_REMOTE_EXECUTOR_H_
