// Softmax attention over packed sequences of different lengths, causal or full, with grouped
// key/value heads.
//
// Keys are taken in blocks of kAttentionBlock counted from the sequence's first key, with a running
// maximum and sum, so memory does not grow with the length. A query's result depends on its own row
// and its sequence's keys and values alone: it is bit-identical whatever else is in the call and
// however many threads run it, and however a sequence's queries are divided among calls.
// Except that a value which is not finite may also reach causal queries up to 15 places before it.
#ifndef QUIVER_KERNELS_CPU_ATTENTION_H_
#define QUIVER_KERNELS_CPU_ATTENTION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/thread_pool.h"

namespace quiver::cpu {

inline constexpr int64_t kAttentionBlock = 128;

// Queries that attend to one sequence's keys. Query i is row q_row + i of q and of out. Of the
// sequence's keys the first prefix_count lie elsewhere (AttentionArgs::prefix_k), from row
// prefix_row on; key j of the others, of which there are kv_count, is row kv_row + j of k and of v.
// With causal attention, query i sees keys [0, q_position + i], counted from the sequence's first,
// which must be at least one and exist; with full attention all of them, at least one. Where keys
// lie has no say in a result.
struct AttentionSpan {
  int64_t q_row = 0;
  int64_t q_count = 0;
  int64_t kv_row = 0;
  int64_t kv_count = 0;
  // Position of the first query within the sequence; causal attention only.
  int64_t q_position = 0;
  int64_t prefix_row = 0;
  int64_t prefix_count = 0;
};

// One span a sequence, all its tokens being queries; sequence s owns rows
// [cu_seqlens[s], cu_seqlens[s + 1]). A pass that is to stop in between, or that needs the last
// token's output only, makes spans of its own.
std::vector<AttentionSpan> WholeSequences(std::span<const int32_t> cu_seqlens);

// Head h of token t is at q + t * q_stride + h * head_dim, and alike in k, v (key/value head) and
// out; strides are in elements. So q, k and v may be columns of one matrix.
struct AttentionArgs {
  const float* q = nullptr;
  const float* k = nullptr;
  const float* v = nullptr;
  float* out = nullptr;
  // Keys and values of spans with a prefix, rows as in k and v.
  const float* prefix_k = nullptr;
  const float* prefix_v = nullptr;
  int64_t prefix_stride = 0;
  int64_t q_stride = 0;
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  int64_t out_stride = 0;
  // num_heads is a multiple of num_kv_heads; query head h uses key/value head
  // h / (num_heads / num_kv_heads).
  int num_heads = 0;
  int num_kv_heads = 0;
  // A multiple of 8, at most 256.
  int head_dim = 0;
  bool causal = false;
  // Factor of q . k; mostly 1 / sqrt(head_dim).
  float scale = 0.0f;
};

// out must not overlap k, v or a prefix. It may be q itself, with the same stride: a query's row is
// read before its result is written, and no other query reads it.
void Attention(const AttentionArgs& args, std::span<const AttentionSpan> spans, ThreadPool* pool);

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_ATTENTION_H_
