// How a memory budget is spent. Host arithmetic alone.
#ifndef QUIVER_ENGINE_RUN_CUDA_CUDA_MEMORY_H_
#define QUIVER_ENGINE_RUN_CUDA_CUDA_MEMORY_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/run/cuda/activation_layout.h"
#include "engine/run/cuda/forward_shape.h"
#include "engine/run/device_options.h"

namespace quiver {

struct MemoryRequest {
  MemoryBudget budget;
  int64_t total_bytes = 0;  // of the card
  // In use already: by others, and by this process before it took anything of what follows.
  int64_t foreign_bytes = 0;
  int64_t context_bytes = 0;
  int64_t weight_bytes = 0;
  // Tokens of the largest batch and of the longest sequence; 0 where nobody said.
  int max_batch_tokens = 0;
  int max_input_tokens = 0;
  // What the model takes where nobody said more.
  int default_input_tokens = 0;
  int64_t max_chunk_tokens = 0;
  int64_t few_rows_bytes = 0;
  int64_t decoder_bytes = 0;
  int64_t expanded_bytes = 0;
  int64_t layer_expanded_bytes = 0;
  int64_t fp8_row_bytes = 0;
};

struct MemoryGrant {
  ActivationPlan activations;
  int64_t budget_bytes = 0;
  int64_t max_sequence_tokens = 0;
};

// What is kept back for what is not taken by us: the code of kernels and of cuBLASLt's, which the
// driver loads as each is first run, and captured graphs.
inline constexpr int64_t kCodeAndGraphBytes = int64_t{128} << 20;

// The largest batch without --max-batch-tokens: products gain nothing from more.
inline constexpr int64_t kDefaultBatchTokens = 32768;

// FAILED_PRECONDITION names --memory-budget, what it is, what is needed and what would fit.
absl::StatusOr<MemoryGrant> GrantMemory(const ForwardShape& shape, const MemoryRequest& request);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_CUDA_MEMORY_H_
