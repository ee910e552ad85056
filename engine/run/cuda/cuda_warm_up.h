// What is done once, before the first request, so that none pays for it.
#ifndef QUIVER_ENGINE_RUN_CUDA_CUDA_WARM_UP_H_
#define QUIVER_ENGINE_RUN_CUDA_CUDA_WARM_UP_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/run/cuda/cuda_device.h"
#include "engine/run/cuda/cuda_executor.h"
#include "engine/run/cuda/matmul.h"
#include "engine/run/cuda/pass_region.h"
#include "engine/run/device_options.h"

namespace quiver {

// "bf16", "f16".
const char* ArithmeticName(ComputeType type);

// Chooses the algorithms of the model's products for as many rows as `region` may have: those that
// an earlier start kept in the cache folder, the rest by measuring, and keeps them there. Returns
// whether any was measured. Overwrites the region's activations.
absl::StatusOr<bool> ChooseAlgorithms(const CudaDevice& device, const CudaOptions& options,
                                      const CudaExecutor& executor, const PassRegion& region,
                                      Matmul* matmul);

// Runs passes that together load all code that passes by steps may use, as CudaGraphs::Capture does
// for graphs: the driver takes memory for a kernel when it is first run.
absl::Status LoadKernels(const CudaExecutor& executor, int64_t max_sequence_tokens,
                         PassRegion* region);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_CUDA_WARM_UP_H_
