#include "engine/run/cuda/cuda_memory.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace quiver {
namespace {

// Inputs of fewer tokens than this are no use, where nobody says how many there must be.
constexpr int64_t kLeastTokens = 512;

std::string MiB(int64_t bytes) {
  return absl::StrCat((bytes + (int64_t{1} << 20) - 1) >> 20, " MiB");
}

}  // namespace

absl::StatusOr<MemoryGrant> GrantMemory(const ForwardShape& shape, const MemoryRequest& request) {
  MemoryGrant grant;
  grant.budget_bytes = request.budget.BytesOf(request.total_bytes);
  const int64_t free_bytes = request.total_bytes - request.foreign_bytes;
  const int64_t usable = std::min(grant.budget_bytes, free_bytes);
  const int64_t fixed = request.context_bytes + kCodeAndGraphBytes + request.weight_bytes;

  const int64_t input =
      request.max_input_tokens > 0 ? request.max_input_tokens : request.default_input_tokens;
  ActivationRequest activations;
  activations.available_bytes = usable - fixed;
  activations.tokens = request.max_batch_tokens > 0 ? request.max_batch_tokens
                                                    : std::max(kDefaultBatchTokens, input);
  // What was asked for must fit; what nobody asked for may be cut.
  activations.min_tokens = request.max_batch_tokens > 0   ? request.max_batch_tokens
                           : request.max_input_tokens > 0 ? request.max_input_tokens
                                                          : std::min(kLeastTokens, input);
  activations.few_rows_bytes = request.few_rows_bytes;
  activations.decoder_bytes = request.decoder_bytes;
  activations.expanded_bytes = request.expanded_bytes;
  activations.layer_expanded_bytes = request.layer_expanded_bytes;
  activations.fp8_row_bytes = request.fp8_row_bytes;
  activations.max_chunk_tokens = request.max_chunk_tokens;
  const absl::StatusOr<ActivationPlan> plan = PlanActivations(shape, activations);
  if (!plan.ok()) {
    const std::string text = MemoryBudgetText(request.budget);
    return absl::FailedPreconditionError(absl::StrCat(
        "--memory-budget, ", text.empty() ? "which is not set" : text, ", allows ", MiB(usable),
        " of the card's ", MiB(request.total_bytes), " (", MiB(request.foreign_bytes),
        " are in use by others), which is too little: the context takes ",
        MiB(request.context_bytes), ", code and graphs ", MiB(kCodeAndGraphBytes), ", weights ",
        MiB(request.weight_bytes), "; ", plan.status().message()));
  }
  grant.activations = *plan;
  grant.max_sequence_tokens = std::min<int64_t>(input, plan->first.tokens);
  return grant;
}

}  // namespace quiver
