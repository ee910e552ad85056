#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace quiver::cpu {

std::vector<AttentionSpan> WholeSequences(std::span<const int32_t> cu_seqlens) {
  std::vector<AttentionSpan> spans;
  for (size_t s = 1; s < cu_seqlens.size(); ++s) {
    const int64_t first = cu_seqlens[s - 1];
    const int64_t count = cu_seqlens[s] - first;
    spans.push_back({.q_row = first, .q_count = count, .kv_row = first, .kv_count = count});
  }
  return spans;
}

void Attention(const AttentionArgs& args, std::span<const AttentionSpan> spans, ThreadPool* pool) {
  const int group = args.num_heads / args.num_kv_heads;
  for (const AttentionSpan& span : spans) {
    ParallelFor(pool, span.q_count * args.num_heads, [&](int64_t task) {
      const int64_t query = task / args.num_heads;
      const int64_t head = task % args.num_heads;
      const int64_t visible = args.causal ? span.q_position + query + 1 : span.kv_count;
      const float* q = args.q + (span.q_row + query) * args.q_stride + head * args.head_dim;
      const float* k = args.k + span.kv_row * args.k_stride + head / group * args.head_dim;
      const float* v = args.v + span.kv_row * args.v_stride + head / group * args.head_dim;
      std::vector<float> weights(static_cast<size_t>(visible));
      float max = -INFINITY;
      for (int64_t j = 0; j < visible; ++j) {
        float dot = 0.0f;
        for (int i = 0; i < args.head_dim; ++i) dot += q[i] * k[j * args.k_stride + i];
        weights[j] = dot * args.scale;
        max = std::max(max, weights[j]);
      }
      float sum = 0.0f;
      std::vector<float> result(static_cast<size_t>(args.head_dim), 0.0f);
      for (int64_t j = 0; j < visible; ++j) {
        const float weight = std::exp(weights[j] - max);
        sum += weight;
        for (int i = 0; i < args.head_dim; ++i) result[i] += weight * v[j * args.v_stride + i];
      }
      float* out = args.out + (span.q_row + query) * args.out_stride + head * args.head_dim;
      for (int i = 0; i < args.head_dim; ++i) out[i] = result[i] / sum;
    });
  }
}

}  // namespace quiver::cpu
