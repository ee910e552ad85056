// Who does the work of a command: an engine inside this process, or a server.
#ifndef QUIVER_TOOLS_QUIVER_EXECUTOR_H_
#define QUIVER_TOOLS_QUIVER_EXECUTOR_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/embedder.h"
#include "engine/text/input_builder.h"
#include "engine/types.h"
#include "quiver/v1/embed.pb.h"
#include "tools/quiver/input_source.h"

namespace quiver {

// Takes results, in the order of the items. Called on the thread that runs the executor.
template <typename Result>
class ResultSink {
 public:
  virtual ~ResultSink() = default;
  // The options are accepted; vectors will have this length (0 for token ids). Comes before
  // anything else, and not at all if the work cannot begin.
  virtual absl::Status Begin(int dimensions) = 0;
  // An error ends the run, as do those of Begin.
  virtual absl::Status Put(const InputItem& item, const absl::StatusOr<Result>& result) = 0;
  // Nothing more will come soon: what was put should become visible.
  virtual absl::Status Flush() = 0;
};
using EmbeddingSink = ResultSink<Embedding>;
using TokenSink = ResultSink<TokenizedInput>;

struct WorkOptions {
  RequestOptions request;
  Lane lane = Lane::kBulk;
  // What is not done by then gets DEADLINE_EXCEEDED, and no more input is read.
  absl::Time deadline = absl::InfiniteFuture();
};

class Executor {
 public:
  virtual ~Executor() = default;

  // What is, or would be, served, without running it.
  virtual absl::StatusOr<v1::ModelInfo> Describe() = 0;

  // Reads `source` to its end. Every item read is put exactly once, with its vector or what was
  // wrong with it. Memory does not grow with the number of items.
  //
  // Not OK if the run as a whole failed: a wrong option is a FieldError of RequestOptions' names; a
  // server that went away, a deadline that passed, an input that cannot be read, a sink that
  // failed. The rest of the input is then not read.
  virtual absl::Status Embed(const WorkOptions& options, InputSource* source,
                             EmbeddingSink* sink) = 0;

  // The same for the token ids that Embed would run.
  virtual absl::Status Tokenize(const WorkOptions& options, InputSource* source,
                                TokenSink* sink) = 0;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_EXECUTOR_H_
