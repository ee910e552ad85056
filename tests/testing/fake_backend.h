// A device made of a formula: it takes the time that it is told, and its vectors are a function of
// each sequence's own ids, so that a test can tell who was given what.
#ifndef QUIVER_TESTS_TESTING_FAKE_BACKEND_H_
#define QUIVER_TESTS_TESTING_FAKE_BACKEND_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "engine/run/backend.h"
#include "engine/run/packed_batch.h"
#include "engine/types.h"
#include "tests/testing/virtual_clock.h"

namespace quiver {

// The vector that FakeBackend gives for `ids`: a digest of the ids and their order, shaped as
// `spec` says. Of two specs that differ in `dimensions` alone, without `normalize`, the shorter
// vector is the beginning of the longer.
EncodedVector FakeVector(absl::Span<const TokenId> ids, const OutputSpec& spec);

class FakeBackend : public Backend {
 public:
  struct Options {
    int max_batch_tokens = 8192;
    int max_sequence_tokens = 8192;
    int max_batch_sequences = 1024;
    int max_second_batch_tokens = 0;
    // Tokens of prefixes that it keeps, ids that is.
    int prefix_tokens = 0;
    // What it says that it took, and of its calls.
    std::vector<MemoryUse> memory = {};
    absl::Duration longest_call = absl::InfiniteDuration();

    // A pass of sequences of lengths n takes fixed + token * sum(n) + token_pair * sum(n * n)
    // microseconds. All zero: no time at all.
    double fixed_us = 0;
    double token_us = 0;
    double token_pair_us = 0;
    // Length of a step; the last one of a pass may be shorter. 0: a pass is one step.
    double step_us = 0;
    // Where time passes: on this clock if it is given, else the calling thread sleeps.
    VirtualClock* clock = nullptr;
    // Whether passes are recorded, which takes memory without end.
    bool keep_records = true;

    // Hooks, all optional, called on the threads that drive the backend, `on_sequence` perhaps
    // while another is. They may block (a hung device) or throw (a broken one). Not OK from the
    // first two fails the pass, from the third the sequence alone. `on_begin` is also asked when a
    // prepared pass is claimed.
    std::function<absl::Status(const PackedBatch&)> on_begin = nullptr;
    // `step` counts from 0.
    std::function<absl::Status(const PackedBatch&, int step)> on_step = nullptr;
    std::function<absl::Status(absl::Span<const TokenId>)> on_sequence = nullptr;
    // What CheckDevice says.
    std::function<absl::Status()> on_check_device = nullptr;
  };

  // What became of one pass, for tests that look at batches.
  struct PassRecord {
    std::vector<int> lengths;
    int tokens = 0;
    // Whether Prepare made it.
    bool prepared = false;
    bool finished = false;
  };

  explicit FakeBackend(Options options);

  const BackendInfo& info() const override { return info_; }
  // FAILED_PRECONDITION, and no pass, if `batch` breaks an invariant of PackedBatch, is too large
  // beside another pass, or two passes have places.
  absl::StatusOr<std::unique_ptr<Pass>> Begin(PackedBatch batch) override;
  absl::StatusOr<std::unique_ptr<Pass>> Prepare(PackedBatch batch, const Pass& before) override;
  absl::Status CheckDevice() override {
    return options_.on_check_device == nullptr ? absl::OkStatus() : options_.on_check_device();
  }

  // All ids of a sequence, with those that are reused.
  std::vector<TokenId> Ids(const PackedBatch& batch, int sequence) const;

  // Microseconds that a pass over `batch` takes.
  double CostUs(const PackedBatch& batch) const;

  // Every pass begun so far and recorded, in order. Safe from any thread, as is TokensRun.
  std::vector<PassRecord> Passes() const;
  // Tokens of finished passes.
  int64_t TokensRun() const;

 private:
  class FakePass;

  // What is wrong with the batch, and with where it is to go.
  static absl::Status Check(const PackedBatch& batch, const Options& options);
  absl::Status CheckPlace(const PackedBatch& batch) const;
  // The record's index.
  size_t Record(const PackedBatch& batch, bool prepared);
  void Spend(double us);

  const Options options_;
  BackendInfo info_;
  // Passes that have a place.
  std::atomic<int> alive_{0};
  mutable absl::Mutex mutex_;
  std::vector<TokenId> prefixes_ ABSL_GUARDED_BY(mutex_);
  std::vector<PassRecord> passes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quiver

#endif  // QUIVER_TESTS_TESTING_FAKE_BACKEND_H_
