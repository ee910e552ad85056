// Rows of embedding tables, widened to F32 and summed.
#ifndef QUIVER_KERNELS_CPU_EMBEDDING_H_
#define QUIVER_KERNELS_CPU_EMBEDDING_H_

#include <cstdint>

#include "kernels/cpu/stored_type.h"
#include "kernels/cpu/thread_pool.h"

namespace quiver::cpu {

// A row-major, dense table [rows, dim] as a checkpoint stores it; need not be aligned. Empty if
// `data` is null.
struct EmbeddingTable {
  StoredType type = StoredType::kF32;
  const void* data = nullptr;
};

// out[t] = tokens[ids[t]] + type[0] + position[positions[t]], in that order, for `rows` tokens.
// `type` (row 0: every token is of the first segment) and `position` may be empty; then
// `positions` is not read. Indices must lie within their tables.
void Embed(const EmbeddingTable& tokens, const EmbeddingTable& type, const EmbeddingTable& position,
           const int32_t* ids, const int32_t* positions, int64_t rows, int64_t dim, float* out,
           int64_t out_stride, ThreadPool* pool);

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_EMBEDDING_H_
