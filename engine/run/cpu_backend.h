// The backend that runs on the machine's cores, in F32. It is the reference for every other one.
//
// A sequence's vector is bit-identical whatever shares its batch, however its pass is cut into
// steps, and however many threads run it.
#ifndef QUIVER_ENGINE_RUN_CPU_BACKEND_H_
#define QUIVER_ENGINE_RUN_CPU_BACKEND_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/run/backend.h"

namespace quiver {

// Its BackendInfo::arithmetic.
inline constexpr char kCpuArithmetic[] = "f32";

struct CpuBackendOptions {
  // 0 for all cores this process may use.
  int num_threads = 0;
  // Tokens of the largest batch; 0 for 4096, or max_input_tokens where that is more.
  int max_batch_tokens = 0;
  // Tokens of the longest sequence; 0 for config.default_max_tokens.
  int max_input_tokens = 0;
  // Memory for keys and values of prefixes, of a decoder that pools the last token; 0 for none.
  int64_t prefix_cache_bytes = 0;
};

// Copies the weights of matrices into the order they are read in, in the type they are stored in;
// embedding tables are read where they are mapped. INVALID_ARGUMENT names an option, a tensor or a
// key of the configuration; UNIMPLEMENTED what Quiver does not run on a CPU, such as quantized
// weights.
//
// Memory beside the weights: for each of the two passes that may be alive, once it has run a batch
// of that size, 4 bytes * (hidden_size + head_dim * (num_heads + 2 * num_kv_heads)) a token.
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const ModelConfig& config,
                                                          std::shared_ptr<const Weights> weights,
                                                          const CpuBackendOptions& options);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CPU_BACKEND_H_
