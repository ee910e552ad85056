#include "engine/run/cuda/cuda_warm_up.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/run/cuda/cuda_pass.h"
#include "engine/run/cuda/cuda_status.h"
#include "engine/run/cuda/matmul_cache.h"
#include "engine/run/cuda/matmul_tuner.h"
#include "kernels/cuda/few_rows_matmul.h"
#include "kernels/cuda/random_fill.h"

namespace quiver {
namespace {

// A pass of sequences of `lengths`, as far as the region allows, by steps.
absl::Status RunOnce(const CudaExecutor& executor, const std::vector<int64_t>& lengths,
                     PassRegion* region) {
  PackedBatch batch;
  int64_t left = region->limits().tokens;
  for (const int64_t length : lengths) {
    const int64_t tokens = std::min(length, left);
    left -= tokens;
    if (tokens == 0) break;
    batch.Append(std::vector<TokenId>(static_cast<size_t>(tokens), 0), {.dimensions = 1});
  }
  PassMemory* memory = region->TakeMemory();
  if (memory == nullptr) return absl::InternalError("kernels are loaded while passes run");
  CudaPass pass(executor, nullptr, region, memory, batch);
  pass.Claim();
  for (;;) {
    const absl::StatusOr<bool> done = pass.Run(0);
    if (!done.ok()) return done.status();
    if (*done) return absl::OkStatus();
  }
}

}  // namespace

const char* ArithmeticName(ComputeType type) {
  return type == ComputeType::kBfloat16 ? "bf16" : "f16";
}

absl::StatusOr<bool> ChooseAlgorithms(const CudaDevice& device, const CudaOptions& options,
                                      const CudaExecutor& executor, const PassRegion& region,
                                      Matmul* matmul) {
  const ActivationLayout& layout = region.layout();
  const bool pruned = executor.options().shape.prune_last;
  const cpu::StoredType type =
      options.dtype == ComputeType::kBfloat16 ? cpu::StoredType::kBF16 : cpu::StoredType::kF16;
  // What products read: as many values as the activations they stand for, near 1 in size.
  CudaCalls calls;
  const auto fill = [&](int64_t begin, int64_t end, uint64_t seed) {
    calls(RandomFill({.mean = 0, .range = 1.7f, .seed = seed}, type, (end - begin) / 2,
                     region.device(begin), region.stream()),
          "making random activations");
  };
  fill(layout.projected, pruned ? layout.pooled_residual : layout.input, 1);
  if (pruned) fill(layout.pooled_query, layout.input, 2);
  // Positions, which index the table of rotations.
  calls(cudaMemsetAsync(region.device(layout.input), 0, static_cast<size_t>(layout.input_bytes),
                        region.stream()),
        "clearing a pass's input");
  if (!calls.ok()) return calls.status();

  const std::string identity = absl::StrCat(device.Identity(), " ", ArithmeticName(options.dtype),
                                            options.force_portable ? " portable" : "");
  const std::string path = MatmulCachePath(options.cache_dir, identity);
  MatmulCache cache = MatmulCache::Load(path, identity);
  const absl::Status status =
      TuneMatmuls(executor.Matmuls(region), executor.Scratch(region), matmul, &cache);
  if (!status.ok()) return status;
  // Where it cannot be kept, the next start takes as long as this one.
  if (cache.changed() && !path.empty()) (void)cache.Save(path);
  return cache.changed();
}

absl::Status LoadKernels(const CudaExecutor& executor, int64_t max_sequence_tokens,
                         PassRegion* region) {
  // Short and long sequences, and each number of rows that our own product has a kernel for.
  std::vector<std::vector<int64_t>> batches = {{1, 64, max_sequence_tokens}};
  for (int64_t rows = 8; rows <= kMaxFewRows; rows += 8) {
    batches.emplace_back(static_cast<size_t>(rows), 1);
  }
  for (const std::vector<int64_t>& lengths : batches) {
    const absl::Status status = RunOnce(executor, lengths, region);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace quiver
