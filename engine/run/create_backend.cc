#include "engine/run/create_backend.h"

#include <utility>

#include "engine/model/model_tensors.h"
#include "engine/run/cpu_backend.h"
#if QUIVER_HAS_CUDA
#include "engine/run/cuda/cuda_backend.h"
#endif

namespace quiver {
namespace {

absl::StatusOr<std::unique_ptr<Backend>> CreateCpu(const ModelConfig& config,
                                                   std::shared_ptr<const Weights> weights,
                                                   const BackendOptions& options) {
  if (weights == nullptr) {
    return absl::InvalidArgumentError("random weights are made on a CUDA device alone");
  }
  return CreateCpuBackend(config, std::move(weights),
                          {.num_threads = options.num_threads,
                           .max_batch_tokens = options.max_batch_tokens,
                           .max_input_tokens = options.max_input_tokens,
                           .prefix_cache_bytes = options.prefix_cache_bytes});
}

#if QUIVER_HAS_CUDA
CudaBackendOptions CudaOptionsOf(const BackendOptions& options) {
  return {.ordinal = options.device.ordinal,
          .cuda = options.cuda,
          .max_batch_tokens = options.max_batch_tokens,
          .max_input_tokens = options.max_input_tokens};
}
#endif

}  // namespace

bool BuiltWithCuda() { return QUIVER_HAS_CUDA != 0; }

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const ModelConfig& config,
                                                       std::shared_ptr<const Weights> weights,
                                                       const BackendOptions& options) {
  if (weights != nullptr) {
    if (absl::Status s = CheckNoFurtherLayer(config, *weights); !s.ok()) return s;
  }
  const DeviceChoice& device = options.device;
#if QUIVER_HAS_CUDA
  const bool cuda = device.kind == DeviceChoice::Kind::kCuda ||
                    (device.kind == DeviceChoice::Kind::kAuto &&
                     CheckCudaDevice(device.ordinal).ok() && CheckCudaModel(config).ok());
  if (cuda) {
    return CreateCudaBackend(config, weights.get(), CudaOptionsOf(options));
  }
#else
  if (device.kind == DeviceChoice::Kind::kCuda) {
    return absl::UnimplementedError(
        "--device cuda: this program was built without CUDA; build with QUIVER_CUDA=ON, or use "
        "--device cpu");
  }
#endif
  return CreateCpu(config, std::move(weights), options);
}

absl::StatusOr<MemoryForecast> ForecastMemory(const ModelConfig& config, const Weights* weights,
                                              const BackendOptions& options, int64_t total_bytes) {
#if QUIVER_HAS_CUDA
  return ForecastCudaMemory(config, weights, CudaOptionsOf(options), total_bytes);
#else
  (void)config, (void)weights, (void)options, (void)total_bytes;
  return absl::UnimplementedError("this program was built without CUDA; build with QUIVER_CUDA=ON");
#endif
}

}  // namespace quiver
