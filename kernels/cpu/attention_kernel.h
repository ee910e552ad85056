// What attention.cc asks of an instruction set. Private to kernels/cpu.
#ifndef QUIVER_KERNELS_CPU_ATTENTION_KERNEL_H_
#define QUIVER_KERNELS_CPU_ATTENTION_KERNEL_H_

#include <cstdint>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/simd.h"

namespace quiver::cpu {

// Some queries of a span, in the query heads that share one key/value head.
struct AttentionTask {
  // At the first query's first head, and at the sequence's first key after its prefix; strides are
  // those of args.
  const float* q = nullptr;
  const float* k = nullptr;
  const float* v = nullptr;
  float* out = nullptr;
  // At the first of `prefix` keys that come before those.
  const float* prefix_k = nullptr;
  const float* prefix_v = nullptr;
  int64_t prefix = 0;
  int64_t queries = 0;
  int heads = 0;
  // Query i sees keys [0, visible + i * visible_step).
  int64_t visible = 0;
  int64_t visible_step = 0;
  // Floats, aligned to 64 bytes: AttentionScratch() of them.
  float* scratch = nullptr;
};

// A tile is one vector of queries in one head.
constexpr int64_t AttentionTiles(int64_t queries) { return (queries + kLanes - 1) / kLanes; }
// Columns of a row of values, in whole vectors.
constexpr int64_t PaddedHeadDim(int head_dim) { return (head_dim + kLanes - 1) / kLanes * kLanes; }
// A tile's query columns, its sums of values, and of each query maximum, sum and rescaling.
constexpr int64_t AttentionTileFloats(int head_dim) {
  return kLanes * (head_dim + PaddedHeadDim(head_dim) + 3);
}
// A block of keys, of values and of scores, and the tiles.
constexpr int64_t AttentionScratch(int64_t queries, int heads, int head_dim) {
  return kAttentionBlock * (2 * PaddedHeadDim(head_dim) + kLanes) +
         AttentionTiles(queries) * heads * AttentionTileFloats(head_dim);
}

struct AttentionKernel {
  void (*attend)(const AttentionArgs& args, const AttentionTask& task);
};

extern const AttentionKernel kAttentionGeneric;
extern const AttentionKernel kAttentionAvx2;
extern const AttentionKernel kAttentionAvx512;

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_ATTENTION_KERNEL_H_
