// From the inputs of a request to token ids: small requests on the calling thread, large ones in
// slices on a pool, so that no text holds up another client's.
#ifndef QUIVER_SERVER_INPUT_TOKENIZER_H_
#define QUIVER_SERVER_INPUT_TOKENIZER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/embedder.h"
#include "server/work_pool.h"

namespace quiver {

// One input as a door took it out of its message.
struct CallInput {
  // Refers to the message, which must live until TokenizeJob::OnEnd.
  InputRef content;
  // Unless OK, what the door found wrong with it (its id, its encoding); it then has no content.
  absl::Status status = absl::OkStatus();
};

// The inputs of one message, and what is done with their ids. Owned by a shared_ptr.
class TokenizeJob {
 public:
  struct Options {
    // Must outlive the job.
    Embedder* embedder = nullptr;
    std::shared_ptr<const RequestPlan> plan;
    std::vector<CallInput> inputs;
    // What holds for all of them. Inputs whose turn comes after the deadline or the cancellation
    // are not tokenized.
    Embedder::SubmitOptions submit;
  };

  explicit TokenizeJob(Options options) : options_(std::move(options)) {}
  virtual ~TokenizeJob() = default;

  const Options& options() const { return options_; }
  size_t size() const { return options_.inputs.size(); }

  // CANCELLED or DEADLINE_EXCEEDED if nobody waits for the answers any more.
  absl::Status StillWanted() const;

  // From OnEnd on: when the first input was taken and the last one done, and the time that
  // tokenizing took, summed over threads.
  absl::Time began() const { return began_; }
  absl::Time ended() const { return absl::FromUnixNanos(ended_ns_.load()); }
  absl::Duration spent() const { return absl::Nanoseconds(spent_ns_.load()); }

 protected:
  // The ids of inputs [begin, begin + ids.size()), or what is wrong with them. Called for each
  // slice, on several threads at once.
  virtual void OnSlice(size_t begin, std::vector<absl::StatusOr<TokenizedInput>> ids) = 0;

  // Once, after the last OnSlice has returned: the inputs' memory is no longer needed.
  virtual void OnEnd() = 0;

 private:
  friend class InputTokenizer;

  // Runs one slice; false if none was left. `observer` may be null.
  bool RunSlice(SchedulerObserver* observer);
  absl::StatusOr<TokenizedInput> TokenizeOne(const CallInput& input,
                                             SchedulerObserver* observer) const;

  Options options_;
  // Slice s is of inputs [borders_[s], borders_[s + 1]).
  std::vector<size_t> borders_;
  std::atomic<size_t> next_slice_{0};
  std::atomic<size_t> slices_left_{0};
  std::atomic<int64_t> spent_ns_{0};
  // Set by whoever takes the first slice.
  absl::Time began_;
  std::atomic<int64_t> ended_ns_{0};
};

// Thread-safe. Must outlive its jobs.
class InputTokenizer {
 public:
  struct Options {
    int threads = 1;
    // Bytes of text up to which a request is tokenized on the calling thread: well below a
    // millisecond's work.
    int64_t inline_bytes = 16 * 1024;
    // Bytes after which a large request lets others have their turn.
    int64_t slice_bytes = 16 * 1024;
    // Told of inputs that are given up before they are tokenized; may be null, else it must outlive
    // the tokenizer.
    SchedulerObserver* observer = nullptr;
  };

  explicit InputTokenizer(Options options);

  // The job's methods may be called before this returns.
  void Start(std::shared_ptr<TokenizeJob> job);

  // For what belongs beside tokenizing, such as trying again to queue.
  WorkPool& pool() { return pool_; }

 private:
  const Options options_;
  WorkPool pool_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_INPUT_TOKENIZER_H_
