// The backend that runs on one CUDA device, in BF16 or FP16 with F32 sums, residual and norms.
//
// All device memory is taken by CreateCudaBackend: nothing is allocated while serving. A vector
// moves a little with what shares its batch, because cuBLASLt's order of summation depends on the
// number of rows: cosine >= 0.9999. So it does from run to run where a batch of few tokens runs as
// one launch (kernels/cuda/decoder_pass.h).
//
// It shares the process's context of the device, and lowers cudaLimitStackSize there: kernels of
// the same process that call by pointer or recur must raise it again.
#ifndef QUIVER_ENGINE_RUN_CUDA_CUDA_BACKEND_H_
#define QUIVER_ENGINE_RUN_CUDA_CUDA_BACKEND_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/run/backend.h"
#include "engine/run/device_options.h"

namespace quiver {

struct CudaBackendOptions {
  int ordinal = 0;
  CudaOptions cuda = {};
  // Tokens of the largest batch; 0 for the least of 32768 (or the longest input, where that is
  // more) and what the budget allows.
  int max_batch_tokens = 0;
  // Tokens of the longest sequence; 0 for config.default_max_tokens, or less where the budget does
  // not allow that.
  int max_input_tokens = 0;
};

// OK if the machine has CUDA device `ordinal` and Quiver runs on it; FAILED_PRECONDITION says what
// is missing.
absl::Status CheckCudaDevice(int ordinal);

// OK if the CUDA backend runs models of this shape; UNIMPLEMENTED names the key of config.json.
absl::Status CheckCudaModel(const ModelConfig& config);

// What CreateCudaBackend would take of a card of Hopper's kind with `total_bytes`, all of them
// free. No device is needed, and `options.ordinal` is of no account; `weights` as there. Errors as
// CreateCudaBackend's.
absl::StatusOr<MemoryForecast> ForecastCudaMemory(const ModelConfig& config, const Weights* weights,
                                                  const CudaBackendOptions& options,
                                                  int64_t total_bytes);

// Loads the weights (null with cuda.dummy_weights, and not read after this), measures algorithms
// that are not on disk yet, captures graphs. INVALID_ARGUMENT names an option, a tensor or a key of
// the configuration; UNIMPLEMENTED what Quiver does not run on CUDA; FAILED_PRECONDITION a device
// that is not there, or a memory budget that is too small, with what would fit.
absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const ModelConfig& config,
                                                           const Weights* weights,
                                                           const CudaBackendOptions& options);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_CUDA_BACKEND_H_
