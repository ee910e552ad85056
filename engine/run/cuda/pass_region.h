// What one pass at a time runs in: its part of the arena and a stream; and the pinned memory of
// those that come before and after it as well.
#ifndef QUIVER_ENGINE_RUN_CUDA_PASS_REGION_H_
#define QUIVER_ENGINE_RUN_CUDA_PASS_REGION_H_

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/run/cuda/activation_layout.h"
#include "engine/run/cuda/device_memory.h"
#include "engine/run/cuda/expanded_weights.h"
#include "engine/run/cuda/forward_shape.h"

namespace quiver {

// What a pass is copied from and to: layout().input_bytes and layout().output_bytes, pinned. One
// pass's from its making to its destruction.
struct PassMemory {
  PinnedMemory input;
  PinnedMemory output;
  std::atomic<bool> in_use{false};
};

class PassRegion {
 public:
  // Passes that may exist at once: one is prepared, one runs, two are complete.
  static constexpr int kPasses = 4;
  // Steps that may be on their way to the device at once: one runs, one waits behind it.
  static constexpr int kStepsInFlight = 2;

  enum class Kind : uint8_t {
    // Waits for the device without taking a core.
    kBulk,
    // Its kernels go before those of a bulk region wherever a multiprocessor falls free, and
    // waiting for them takes a core.
    kQuick,
  };

  // `device` must have ActivationLayout(shape, limits).bytes, and outlive this.
  static absl::StatusOr<std::unique_ptr<PassRegion>> Create(Kind kind, const ForwardShape& shape,
                                                            const PassLimits& limits,
                                                            std::byte* device);
  ~PassRegion();

  const PassLimits& limits() const { return limits_; }
  const ActivationLayout& layout() const { return layout_; }
  cudaStream_t stream() const { return stream_; }
  // Of the step that is the `number`th of its pass.
  cudaEvent_t begin(int64_t number) const { return begins_[number % kStepsInFlight]; }
  cudaEvent_t end(int64_t number) const { return ends_[number % kStepsInFlight]; }
  // Null if all are in use. Free it by setting `in_use` to false.
  PassMemory* TakeMemory();
  template <typename T = std::byte>
  T* device(int64_t offset) const {
    return reinterpret_cast<T*>(device_ + offset);
  }

  // Put on the stream: `bytes` of the input, and of the output.
  cudaError_t CopyInput(const PassMemory& memory, int64_t bytes) const;
  cudaError_t CopyOutput(const PassMemory& memory, int64_t bytes) const;

  // In the room for them; null in a quick region, whose passes are captured or of one chunk.
  ExpandedWeights* expanded_weights() const { return expanded_weights_.get(); }

  // By the pass that has its place here.
  std::atomic<bool> in_use{false};

 private:
  PassRegion() = default;

  std::unique_ptr<ExpandedWeights> expanded_weights_;
  PassLimits limits_;
  ActivationLayout layout_;
  std::byte* device_ = nullptr;
  std::array<PassMemory, kPasses> memory_;
  cudaStream_t stream_ = nullptr;
  std::array<cudaEvent_t, kStepsInFlight> begins_ = {};
  std::array<cudaEvent_t, kStepsInFlight> ends_ = {};
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_PASS_REGION_H_
