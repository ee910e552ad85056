// The facade of the engine: one model, text or token ids in, exactly one completion out. Knows
// nothing of sockets.
#ifndef QUIVER_ENGINE_EMBEDDER_H_
#define QUIVER_ENGINE_EMBEDDER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/field_error.h"
#include "engine/model/model_config.h"
#include "engine/run/backend.h"
#include "engine/run/device_options.h"
#include "engine/schedule/scheduler.h"
#include "engine/text/input_builder.h"
#include "engine/text/tokenizer.h"
#include "engine/types.h"

namespace quiver {

// A request's wishes as the caller states them; what is absent falls to the server's defaults.
struct RequestOptions {
  // At most one of the two. An empty prompt_name asks for no prompt.
  std::optional<std::string> prompt_name;
  std::optional<std::string> instruction;
  std::optional<int64_t> dimensions;
  std::optional<bool> normalize;
  std::optional<Truncation> truncation;
  OutputType output_type = OutputType::kFloat32;
};

// A request's wishes, checked and resolved; shared by all its items. Made by Embedder::Plan.
struct RequestPlan {
  // Text put before each text input.
  std::string prompt;
  OutputSpec output;
  Truncation truncation = Truncation::kNone;
  // Fingerprints of the vector space and of the prompt, as in embed.proto's VectorSpace.
  std::string space_fingerprint;
  std::string prompt_fingerprint;
};

// One input. The referred-to memory is read only during the call it is passed to.
using InputRef = std::variant<absl::string_view, absl::Span<const TokenId>>;

// The result of one input.
struct Embedding {
  EncodedVector vector;
  int token_count = 0;
  bool truncated = false;
  // As TaskResult has them.
  absl::Duration queue_time;
  absl::Duration compute_time;
  absl::Time answered;
  BatchShape batch = {};
};

// What is served, fixed at load.
struct ModelInfo {
  // The directory's base name unless Options.name says otherwise.
  std::string name;
  ModelConfig config;
  BackendInfo backend;
  // Digest of the weights, for the vector space's fingerprint.
  std::string weights_fingerprint;
  int64_t num_parameters = 0;
  int64_t weight_bytes = 0;
  // Element type of most of the weights, as stored: "float32", "float16", "bfloat16".
  std::string weight_type;
  int vocabulary_size = 0;
  // Tokens of the longest input, prompt and special tokens included.
  int max_input_tokens = 0;
  // Bytes of the longest text that is looked at; longer is refused, or under truncation cut first.
  int64_t max_text_bytes = 0;
  int default_dimensions = 0;
  Truncation default_truncation = Truncation::kNone;
  std::string default_prompt_name;
  // The space of a request with default options.
  std::string space_fingerprint;
};

// Thread-safe, all of it, but for creation and destruction.
class Embedder {
 public:
  struct Options {
    // A Hugging Face directory.
    std::string model_dir;
    QuantizationChoice quantization = QuantizationChoice::kAuto;
    // Name to serve under; empty for the directory's base name.
    std::string name;
    DeviceChoice device;
    CudaOptions cuda;
    // Threads of the CPU backend; 0 for all cores this process may use.
    int num_threads = 0;
    // Tokens of the longest input; 0 for the model's default limit. May raise it up to the
    // positions the model has.
    int max_input_tokens = 0;
    // Tokens of a batch; 0 for the backend's choice. At least max_input_tokens.
    int max_batch_tokens = 0;
    // Memory for keys and values of the beginnings that inputs share, such as an instruction; 0 for
    // none. Of no use to encoders, whose tokens see those after them.
    int64_t prefix_cache_bytes = kDefaultPrefixCacheBytes;
    // Defaults for requests that do not say: absent means the model's own.
    std::optional<int64_t> default_dimensions;
    std::optional<std::string> default_prompt_name;
    Truncation default_truncation = Truncation::kNone;
    Scheduler::Options scheduler;
  };

  // Loads, checks, and warms the backend up; ready when it returns. `observer` may be null and
  // must outlive the embedder.
  static absl::StatusOr<std::unique_ptr<Embedder>> Create(Options options,
                                                          SchedulerObserver* observer);

  // The same over given parts, for tests and other programs: a tokenizer and a backend of any kind.
  // Of `info` the name, the config and what concerns the weights are given; the rest is filled in.
  static absl::StatusOr<std::unique_ptr<Embedder>> CreateWith(Options options, ModelInfo info,
                                                              std::unique_ptr<Tokenizer> tokenizer,
                                                              std::unique_ptr<Backend> backend,
                                                              SchedulerObserver* observer);

  virtual ~Embedder() = default;

  virtual const ModelInfo& info() const = 0;

  // Checks the options of a request once for all its items. INVALID_ARGUMENT names field, limit and
  // value.
  virtual absl::StatusOr<RequestPlan> Plan(const RequestOptions& options) const = 0;

  // The ids that the model would run for `input`: prompt and special tokens around a text, ids as
  // given. Works on the calling thread. INVALID_ARGUMENT for an empty input, invalid UTF-8 (byte
  // offset), an id out of range (its index), or a length over the limit without truncation (both
  // numbers).
  virtual absl::StatusOr<TokenizedInput> Tokenize(const RequestPlan& plan,
                                                  InputRef input) const = 0;

  // What holds for a submission beside its tokens.
  struct SubmitOptions {
    Lane lane = Lane::kInteractive;
    absl::Time deadline = absl::InfiniteFuture();
    std::shared_ptr<const CancellationFlag> cancellation;
    // See EmbedTask::tenant.
    std::string tenant;
  };
  using DoneCallback = absl::AnyInvocable<void(absl::StatusOr<Embedding>)>;

  // Queues one tokenized input. `done` is called exactly once if and only if OK is returned; see
  // Scheduler::Submit for the errors and EmbedTask::done for what it may do. Unless OK is returned
  // `input` is left as it was, so that the caller may try again later.
  virtual absl::Status Submit(const RequestPlan& plan, TokenizedInput&& input,
                              SubmitOptions options, DoneCallback done) = 0;

  // The same for each of `items` in order, which costs less: their answers.
  struct Item {
    TokenizedInput input;
    DoneCallback done;
  };
  virtual std::vector<absl::Status> SubmitMany(const RequestPlan& plan, absl::Span<Item> items,
                                               const SubmitOptions& options) = 0;

  // Takes no more work and finishes what it has by `deadline`; see Scheduler::Drain.
  virtual bool Drain(absl::Time deadline) = 0;

  virtual QueueSnapshot Snapshot() const = 0;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_EMBEDDER_H_
