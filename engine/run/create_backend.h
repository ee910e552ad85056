// Which backend runs a model: chosen by what was built, what the machine has and what was asked
// for.
#ifndef QUIVER_ENGINE_RUN_CREATE_BACKEND_H_
#define QUIVER_ENGINE_RUN_CREATE_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/run/backend.h"
#include "engine/run/device_options.h"

namespace quiver {

struct BackendOptions {
  DeviceChoice device = {};
  CudaOptions cuda = {};
  // Threads of the CPU backend; 0 for all cores this process may use.
  int num_threads = 0;
  // Tokens of the largest batch; 0 for the backend's choice.
  int max_batch_tokens = 0;
  // Tokens of the longest sequence; 0 for config.default_max_tokens, or what memory allows.
  int max_input_tokens = 0;
  // Memory for keys and values of prefixes; 0 for none.
  int64_t prefix_cache_bytes = 0;
};

// Whether this build has the CUDA backend.
bool BuiltWithCuda();

// UNIMPLEMENTED if a CUDA device is asked for and this build has no CUDA; FAILED_PRECONDITION if
// the machine has no such device, or if the model does not fit the memory budget; INVALID_ARGUMENT
// if the weights have more layers than the configuration; else as the backend's own Create.
absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const ModelConfig& config,
                                                       std::shared_ptr<const Weights> weights,
                                                       const BackendOptions& options);

// What CreateBackend would take on a CUDA device of Hopper's kind with `total_bytes` of memory,
// which need not be here. FAILED_PRECONDITION says what would fit; UNIMPLEMENTED where this build
// has no CUDA.
absl::StatusOr<MemoryForecast> ForecastMemory(const ModelConfig& config, const Weights* weights,
                                              const BackendOptions& options, int64_t total_bytes);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CREATE_BACKEND_H_
