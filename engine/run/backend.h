// The one virtual seam of the engine: a model's weights on one device, and forward passes over
// packed batches.
#ifndef QUIVER_ENGINE_RUN_BACKEND_H_
#define QUIVER_ENGINE_RUN_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/run/packed_batch.h"
#include "engine/types.h"

namespace quiver {

// Device memory by what it is for.
struct MemoryUse {
  std::string purpose;
  int64_t bytes = 0;
};

// What a backend would take of a device's memory, and could then do; as in BackendInfo.
struct MemoryForecast {
  std::vector<MemoryUse> memory;
  int max_batch_tokens = 0;
  int max_second_batch_tokens = 0;
  int max_sequence_tokens = 0;
};

// What a backend can do, fixed at load.
struct BackendInfo {
  // For people, such as "cpu (avx512, 8 threads)".
  std::string device;
  // Arithmetic that changes a vector's value, as part of the vector space's name, such as "f32".
  std::string arithmetic;
  // Tokens of the largest batch it can run at once, and of the longest sequence. The first is at
  // least the second.
  int max_batch_tokens = 0;
  int max_sequence_tokens = 0;
  // Sequences of the largest batch.
  int max_batch_sequences = 0;
  // Tokens of a batch that is begun while another pass is alive; 0 for max_batch_tokens. A sequence
  // that is longer waits until no pass is.
  int max_second_batch_tokens = 0;
  // Tokens whose keys and values it keeps for sequences that begin alike (PrefixUse), over all
  // prefixes; 0 if it keeps none.
  int prefix_tokens = 0;
  // What the backend took of its device's memory, the largest first; empty if nobody counts it.
  std::vector<MemoryUse> memory;
  // The most it may take; 0 if nobody counts it.
  int64_t memory_budget_bytes = 0;
  // As the driver names the card, "GPU-" and a UUID; empty if it is none.
  std::string device_uuid;
  // A call that begins or runs a pass takes longer than this only if the device hangs; infinite
  // where that cannot be told, as on a CPU.
  absl::Duration longest_call = absl::InfiniteDuration();
};

// One forward pass, resumable after every step. Driven by one thread at a time. May be destroyed
// before it is complete, when nobody wants its vectors any more.
//
// It has a place on the device from Begin, or Claim, until it is complete, has failed or is
// destroyed.
class Pass {
 public:
  virtual ~Pass() = default;

  // Of a pass made by Prepare, once and before the first Run: gives it a place on the device. False
  // if there is none that it can take; the pass is then to be destroyed.
  virtual bool Claim() { return true; }

  // Runs steps until the pass is complete or `max_us` microseconds are over (checked at each step's
  // border, so it may overrun by one step). Returns true when the pass is complete. An error fails
  // the whole pass; it cannot be resumed.
  virtual absl::StatusOr<bool> Run(int64_t max_us) = 0;

  // Milliseconds on the device of each step that has ended; empty where steps are not timed: on a
  // CPU, and in a pass that the device runs as a whole.
  virtual std::vector<double> StepMs() const { return {}; }

  // After Run returned true: one result for each sequence, in order. A non-finite value or a zero
  // norm is an INTERNAL error of that sequence alone. Called at most once, on any thread, and while
  // another pass runs.
  virtual std::vector<absl::StatusOr<EncodedVector>> Finish() = 0;
};

// Weights on one device. Begin() and Prepare() are called by one thread at a time, which need not
// be the one that runs passes. Two passes may have places on the device; the second is for
// interactive work that overtakes a bulk pass between its steps.
class Backend {
 public:
  virtual ~Backend() = default;

  virtual const BackendInfo& info() const = 0;

  // Starts a pass over `batch`, which fulfils PackedBatch's invariants. At most two passes may have
  // places at once, the second of max_second_batch_tokens at most; their steps may interleave, and
  // calls of Run never overlap. Two more may be complete and not destroyed yet. The pass keeps its
  // own copy of what it needs.
  virtual absl::StatusOr<std::unique_ptr<Pass>> Begin(PackedBatch batch) = 0;

  // Does beforehand what Begin does, for a pass that is to begin when `before`, which may be
  // running, is complete. At most one such is alive. An error if that is of no use.
  virtual absl::StatusOr<std::unique_ptr<Pass>> Prepare(PackedBatch /*batch*/,
                                                        const Pass& /*before*/) {
    return absl::UnimplementedError("passes are not prepared");
  }

  // Asked when a pass has failed: whether the device can run others. An error says why not, and is
  // for good, such as a context that a kernel has broken or a card that fell off its bus. Called by
  // the thread that runs passes; may wait for what the device is at.
  virtual absl::Status CheckDevice() { return absl::OkStatus(); }
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_BACKEND_H_
