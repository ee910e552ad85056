#include "kernels/cpu/embedding.h"

#include <cstddef>

namespace quiver::cpu {
namespace {

const void* Row(const EmbeddingTable& table, int64_t row, int64_t dim) {
  return static_cast<const std::byte*>(table.data) +
         static_cast<size_t>(row * dim) * StoredSize(table.type);
}

// out += the table's row, by way of a small buffer.
void AddRow(const EmbeddingTable& table, int64_t row, int64_t dim, float* out) {
  constexpr int64_t kChunk = 256;
  float chunk[kChunk];
  const auto* source = static_cast<const std::byte*>(Row(table, row, dim));
  for (int64_t i = 0; i < dim; i += kChunk) {
    const int64_t count = dim - i < kChunk ? dim - i : kChunk;
    WidenToFloat(table.type, source + static_cast<size_t>(i) * StoredSize(table.type), count,
                 chunk);
    for (int64_t j = 0; j < count; ++j) out[i + j] += chunk[j];
  }
}

}  // namespace

void Embed(const EmbeddingTable& tokens, const EmbeddingTable& type, const EmbeddingTable& position,
           const int32_t* ids, const int32_t* positions, int64_t rows, int64_t dim, float* out,
           int64_t out_stride, ThreadPool* pool) {
  ParallelForRows(pool, rows, [&](int64_t t) {
    float* row = out + t * out_stride;
    WidenToFloat(tokens.type, Row(tokens, ids[t], dim), dim, row);
    if (type.data != nullptr) AddRow(type, 0, dim, row);
    if (position.data != nullptr) AddRow(position, positions[t], dim, row);
  });
}

}  // namespace quiver::cpu
