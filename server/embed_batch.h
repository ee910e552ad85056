#ifndef QUIVER_SERVER_EMBED_BATCH_H_
#define QUIVER_SERVER_EMBED_BATCH_H_

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/embedder.h"
#include "server/input_tokenizer.h"

namespace quiver {

// The inputs of one message on their way through tokenizer and queue to exactly one result each.
// What is wrong with one does not touch the others. The methods to override are called on any
// thread, the scheduler's included: they must be quick and must not call the embedder.
class EmbedBatch : public TokenizeJob, public std::enable_shared_from_this<EmbedBatch> {
 public:
  // `waiting_room`, if given, is where inputs that the full queue refuses wait until it takes them;
  // without it they are answered RESOURCE_EXHAUSTED. Must outlive the batch.
  EmbedBatch(Options options, WorkPool* waiting_room)
      : TokenizeJob(std::move(options)), waiting_room_(waiting_room) {}

  // Whether the queue took any of the inputs.
  bool queued_any() const { return queued_any_; }

 protected:
  // Before input `index` is queued with so many tokens.
  virtual void OnTokens(size_t /*index*/, int /*tokens*/) {}

  // Exactly once for each input.
  virtual void OnResult(size_t index, absl::StatusOr<Embedding> result) = 0;

  // Once: every input has been queued or answered, and the inputs' memory is no longer needed.
  // Results come before and after it.
  virtual void OnFed() = 0;

 private:
  struct Refused {
    size_t index;
    TokenizedInput input;
  };

  void OnSlice(size_t begin, std::vector<absl::StatusOr<TokenizedInput>> ids) final;
  void OnEnd() final;
  Embedder::DoneCallback OnDone(size_t index);
  // Queues what was refused, in order. How long to wait before the next try, or kFinished.
  absl::Duration TryAgain(std::deque<Refused>* refused);

  WorkPool* const waiting_room_;
  std::atomic<bool> queued_any_{false};
  absl::Mutex mutex_;
  std::deque<Refused> refused_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quiver

#endif  // QUIVER_SERVER_EMBED_BATCH_H_
