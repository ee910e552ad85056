#include "engine/run/cuda/pass_region.h"

#include <utility>

#include "engine/run/cuda/cuda_status.h"

namespace quiver {

absl::StatusOr<std::unique_ptr<PassRegion>> PassRegion::Create(Kind kind, const ForwardShape& shape,
                                                               const PassLimits& limits,
                                                               std::byte* device) {
  std::unique_ptr<PassRegion> region(new PassRegion);
  region->limits_ = limits;
  region->layout_ = ActivationLayout(shape, limits);
  region->device_ = device;
  if (kind == Kind::kBulk) region->expanded_weights_ = std::make_unique<ExpandedWeights>();
  const ActivationLayout& layout = region->layout_;
  for (PassMemory& memory : region->memory_) {
    absl::StatusOr<PinnedMemory> input = AllocatePinned(layout.input_bytes, "a pass's input");
    if (!input.ok()) return input.status();
    absl::StatusOr<PinnedMemory> output = AllocatePinned(layout.output_bytes, "a pass's output");
    if (!output.ok()) return output.status();
    memory.input = *std::move(input);
    memory.output = *std::move(output);
  }

  CudaCalls calls;
  int least = 0;
  int greatest = 0;
  calls(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for priorities");
  calls(cudaStreamCreateWithPriority(&region->stream_, cudaStreamNonBlocking,
                                     kind == Kind::kQuick ? greatest : least),
        "creating a stream");
  const unsigned wait = kind == Kind::kQuick ? cudaEventDefault : cudaEventBlockingSync;
  for (int i = 0; i < kStepsInFlight; ++i) {
    calls(cudaEventCreate(&region->begins_[i]), "creating an event");
    calls(cudaEventCreateWithFlags(&region->ends_[i], wait), "creating an event");
  }
  // Zero at first; launches leave them as the next one needs them.
  calls(cudaMemsetAsync(region->device(layout.counters), 0, 2 * sizeof(int32_t), region->stream_),
        "clearing counters");
  calls(cudaMemsetAsync(region->device(layout.few_rows), 0,
                        static_cast<size_t>(limits.few_rows_bytes), region->stream_),
        "clearing a workspace");
  if (limits.decoder_bytes > 0) {
    calls(cudaMemsetAsync(region->device(layout.decoder), 0,
                          static_cast<size_t>(limits.decoder_bytes), region->stream_),
          "clearing a workspace");
  }
  if (!calls.ok()) return calls.status();
  return region;
}

PassRegion::~PassRegion() {
  for (const auto& events : {begins_, ends_}) {
    for (const cudaEvent_t event : events) {
      if (event != nullptr) cudaEventDestroy(event);
    }
  }
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

PassMemory* PassRegion::TakeMemory() {
  for (PassMemory& memory : memory_) {
    if (!memory.in_use.exchange(true)) return &memory;
  }
  return nullptr;
}

cudaError_t PassRegion::CopyInput(const PassMemory& memory, int64_t bytes) const {
  return cudaMemcpyAsync(device(layout_.input), memory.input.get(), static_cast<size_t>(bytes),
                         cudaMemcpyHostToDevice, stream_);
}

cudaError_t PassRegion::CopyOutput(const PassMemory& memory, int64_t bytes) const {
  return cudaMemcpyAsync(memory.output.get(), device(layout_.results), static_cast<size_t>(bytes),
                         cudaMemcpyDeviceToHost, stream_);
}

}  // namespace quiver
