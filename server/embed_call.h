// One request for embeddings from its options to its reply: what every door has in common.
#ifndef QUIVER_SERVER_EMBED_CALL_H_
#define QUIVER_SERVER_EMBED_CALL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/embedder.h"
#include "server/input_tokenizer.h"
#include "server/request_observer.h"
#include "server/work_pool.h"

namespace quiver {

// What became of a request whose options were good.
struct EmbedReply {
  std::shared_ptr<const RequestPlan> plan;
  // One for each input, in order. An error's field is relative to the input ("text").
  std::vector<absl::StatusOr<Embedding>> results;
  // Of an all-or-nothing request: the input whose error ended it; others may be CANCELLED for it.
  std::optional<size_t> failed_input;
  // Lane, items, tokens and times are set; the door knows the rest.
  RequestReport report;
};

// The threads behind the doors, and the requests that they work on. Thread-safe. No request may be
// under way when it is destroyed.
class EmbedCalls {
 public:
  struct Options {
    InputTokenizer::Options tokenizer;
    // Threads that make replies of results, so that the scheduler's thread need not.
    int reply_threads = 2;
  };

  // Exactly once, on one of this object's threads: a reply with a result for each input, or an
  // error if nothing could be queued because the queue was full (RESOURCE_EXHAUSTED, with
  // RetryDelay) or closed (UNAVAILABLE), if the request was cancelled, or if its deadline passed.
  using Callback = absl::AnyInvocable<void(absl::StatusOr<EmbedReply>)>;

  explicit EmbedCalls(Options options)
      : replies_(options.reply_threads), tokenizer_(options.tokenizer) {}

  // `job.plan` is from `job.embedder`'s Plan; what the inputs refer to must live until `done`.
  // `arrival` is when the request came.
  void Start(TokenizeJob::Options job, absl::Time arrival, Callback done);

  // A request that is of no use without every one of its inputs: the first that fails ends it, and
  // no more is computed for it.
  struct AllOrNothing {
    // Becomes the job's; is set then.
    std::shared_ptr<CancellationFlag> cancellation;
    // Of all inputs: with more of them the request is INVALID_ARGUMENT, as the queue would never
    // take it whole.
    int64_t max_tokens = 0;
    // What the inputs are called in that error.
    absl::string_view input_key;
  };
  void StartWhole(TokenizeJob::Options job, AllOrNothing whole, absl::Time arrival, Callback done);

  // For doors that have work of their own kind: jobs for Start, and the making of replies.
  InputTokenizer& tokenizer() { return tokenizer_; }
  WorkPool& replies() { return replies_; }

 private:
  WorkPool replies_;
  InputTokenizer tokenizer_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_EMBED_CALL_H_
