#include "engine/run/cuda/activation_layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/pool_encode.h"

namespace quiver {
namespace {

constexpr int64_t kF32Bytes = 4;
constexpr int64_t kHalfBytes = 2;

// Chunk and second pass, from the quickest to the smallest. Products are a little slower in small
// chunks; a second pass is a query's, or bulk work's beside one.
struct Size {
  int64_t chunk_tokens;
  int64_t second_tokens;
};
constexpr Size kSizes[] = {{8192, 4096}, {8192, 2048}, {4096, 4096}, {4096, 2048},
                           {4096, 1024}, {2048, 2048}, {2048, 1024}, {1024, 1024}};
// Of the second pass: it is seldom longer.
constexpr int64_t kSecondChunkTokens = 1024;
// Where memory is so short that both are the smallest, weights are expanded in parts: in two in the
// first pass, and of so many bytes in the second, which seldom has enough rows to need them.
constexpr int64_t kSecondExpandedBytes = int64_t{24} << 20;

// Arrays one after another.
class Cursor {
 public:
  explicit Cursor(int64_t alignment) : alignment_(alignment) {}
  int64_t Take(int64_t bytes) {
    const int64_t offset = end_;
    end_ = AlignUp(end_ + bytes, alignment_);
    return offset;
  }
  int64_t end() const { return end_; }

 private:
  const int64_t alignment_;
  int64_t end_ = 0;
};

ActivationPlan PlanOf(const ForwardShape& shape, const ActivationRequest& request, const Size& size,
                      int64_t tokens) {
  const auto limits = [&](int64_t pass_tokens, int64_t chunk_tokens) {
    PassLimits pass;
    pass.tokens = pass_tokens;
    pass.chunk_tokens = std::min(pass_tokens, chunk_tokens);
    pass.few_rows_bytes = request.few_rows_bytes;
    pass.expanded_bytes = request.expanded_bytes;
    pass.sequences = std::min(pass.chunk_tokens, kMaxBatchSequences);
    return pass;
  };
  ActivationPlan plan;
  plan.first = limits(tokens, size.chunk_tokens);
  plan.second = limits(std::min(tokens, size.second_tokens), kSecondChunkTokens);
  plan.second.decoder_bytes = request.decoder_bytes;
  if (plan.first.chunk_tokens < plan.first.tokens) {
    plan.first.expanded_bytes = std::max(request.expanded_bytes, request.layer_expanded_bytes);
  }
  if (&size == std::end(kSizes) - 1) {
    plan.first.expanded_bytes = (request.expanded_bytes + 1) / 2;
    plan.second.expanded_bytes = std::min(request.expanded_bytes, kSecondExpandedBytes);
  }
  for (PassLimits* pass : {&plan.first, &plan.second}) {
    pass->expanded_bytes += pass->chunk_tokens * request.fp8_row_bytes;
  }
  plan.bytes =
      ActivationLayout(shape, plan.first).bytes + ActivationLayout(shape, plan.second).bytes;
  return plan;
}

}  // namespace

InputLayout::InputLayout(int64_t tokens, int64_t sequences, int64_t num_tiles,
                         int64_t num_pooled_tiles) {
  Cursor cursor(16);
  const int64_t id_bytes = static_cast<int64_t>(sizeof(int32_t));
  ids = cursor.Take(tokens * id_bytes);
  positions = cursor.Take(tokens * id_bytes);
  pooled_rows = cursor.Take(sequences * id_bytes);
  pooled_positions = cursor.Take(sequences * id_bytes);
  items = cursor.Take(sequences * static_cast<int64_t>(sizeof(PoolItem)));
  const int64_t tile_bytes = static_cast<int64_t>(sizeof(AttentionTile));
  tiles = cursor.Take(num_tiles * tile_bytes);
  pooled_tiles = cursor.Take(num_pooled_tiles * tile_bytes);
  bytes = cursor.end();
}

ActivationLayout::ActivationLayout(const ForwardShape& shape, const PassLimits& limits) {
  // A captured pass has more tiles than one of as many tokens may need.
  const int64_t tiles = 2 * MaxTiles(limits.tokens, limits.sequences) + kMaxGraphTokens / 64;
  input_bytes = InputLayout(limits.tokens, limits.sequences, tiles, 2 * limits.sequences).bytes;
  Cursor cursor(kArenaAlignment);
  residual = cursor.Take(limits.tokens * shape.hidden * kF32Bytes);
  projected = cursor.Take(limits.tokens * shape.projection_width() * kHalfBytes);
  half = cursor.Take(limits.chunk_tokens * shape.hidden * kHalfBytes);
  inner = cursor.Take(limits.chunk_tokens * shape.inner_width * kHalfBytes);
  row_scales = cursor.Take(limits.chunk_tokens * kF32Bytes);
  if (shape.prune_last) {
    pooled_residual = cursor.Take(limits.sequences * shape.hidden * kF32Bytes);
    pooled_query = cursor.Take(limits.sequences * shape.query_width() * kHalfBytes);
  }
  input = cursor.Take(input_bytes);
  results = cursor.Take(limits.sequences * static_cast<int64_t>(sizeof(PoolResult)));
  vectors = cursor.Take(limits.sequences * shape.hidden * kF32Bytes);
  output_bytes = cursor.end() - results;
  counters = cursor.Take(2 * static_cast<int64_t>(sizeof(int32_t)));
  few_rows = cursor.Take(limits.few_rows_bytes);
  decoder = cursor.Take(limits.decoder_bytes);
  expanded = cursor.Take(limits.expanded_bytes);
  workspace = cursor.Take(kWorkspaceBytes);
  bytes = cursor.end();
}

absl::StatusOr<ActivationPlan> PlanActivations(const ForwardShape& shape,
                                               const ActivationRequest& request) {
  for (const Size& size : kSizes) {
    if (size.chunk_tokens > request.max_chunk_tokens && &size != std::end(kSizes) - 1) continue;
    const ActivationPlan plan = PlanOf(shape, request, size, request.tokens);
    if (plan.bytes <= request.available_bytes) return plan;
  }
  const Size& smallest = *(std::end(kSizes) - 1);
  // The most tokens that fit: `fits` do (if any), `exceeds` do not.
  int64_t fits = 0;
  int64_t exceeds = request.tokens;
  while (exceeds - fits > 1) {
    const int64_t middle = fits + (exceeds - fits) / 2;
    (PlanOf(shape, request, smallest, middle).bytes <= request.available_bytes ? fits : exceeds) =
        middle;
  }
  if (fits < std::max<int64_t>(request.min_tokens, 1)) {
    const int64_t needed =
        PlanOf(shape, request, smallest, std::max<int64_t>(request.min_tokens, 1)).bytes;
    return absl::ResourceExhaustedError(
        absl::StrCat("activations for ", request.min_tokens, " tokens take ", needed, " bytes, ",
                     std::max<int64_t>(request.available_bytes, 0), " are left for them; ", fits,
                     " tokens would fit"));
  }
  return PlanOf(shape, request, smallest, fits);
}

}  // namespace quiver
