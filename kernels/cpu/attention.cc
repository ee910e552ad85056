#include "kernels/cpu/attention.h"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/isa.h"

namespace quiver::cpu {
namespace {

// Rows (queries times the heads that share keys and values) of a task: enough that copying a block
// of keys and values costs little beside them.
constexpr int64_t kTaskRows = 64;

// Memory of one thread, which grows to what its largest task took.
class Scratch {
 public:
  float* Get(int64_t floats) {
    if (floats > floats_) {
      data_.reset();
      data_.reset(static_cast<float*>(
          ::operator new(static_cast<size_t>(floats) * sizeof(float), kAlignment)));
      floats_ = floats;
    }
    return data_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(float* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t floats_ = 0;
};

}  // namespace

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
  const AttentionKernel& kernel = KernelFor(kAttentionGeneric, kAttentionAvx2, kAttentionAvx512);
  const int group = args.num_heads / args.num_kv_heads;
  const int64_t task_queries = std::max<int64_t>(kTaskRows / group / kLanes, 1) * kLanes;

  // A span has one task for each key/value head and task_queries of its queries; span s has those
  // from first_task[s] on.
  std::vector<int64_t> first_task = {0};
  for (const AttentionSpan& span : spans) {
    const int64_t chunks = (span.q_count + task_queries - 1) / task_queries;
    first_task.push_back(first_task.back() + chunks * args.num_kv_heads);
  }
  ParallelFor(pool, first_task.back(), [&](int64_t index) {
    thread_local Scratch scratch;
    const auto next = std::upper_bound(first_task.begin(), first_task.end(), index);
    const auto s = static_cast<size_t>(next - first_task.begin()) - 1;
    const AttentionSpan& span = spans[s];
    const int64_t chunks = (first_task[s + 1] - first_task[s]) / args.num_kv_heads;
    const int64_t head = (index - first_task[s]) / chunks;
    const int64_t query = (index - first_task[s]) % chunks * task_queries;
    AttentionTask task;
    task.q = args.q + (span.q_row + query) * args.q_stride + head * group * args.head_dim;
    task.k = args.k + span.kv_row * args.k_stride + head * args.head_dim;
    task.v = args.v + span.kv_row * args.v_stride + head * args.head_dim;
    task.out = args.out + (span.q_row + query) * args.out_stride + head * group * args.head_dim;
    task.queries = std::min(task_queries, span.q_count - query);
    task.heads = group;
    task.prefix = span.prefix_count;
    if (task.prefix > 0) {
      const int64_t column = span.prefix_row * args.prefix_stride + head * args.head_dim;
      task.prefix_k = args.prefix_k + column;
      task.prefix_v = args.prefix_v + column;
    }
    task.visible = args.causal ? span.q_position + query + 1 : span.prefix_count + span.kv_count;
    task.visible_step = args.causal ? 1 : 0;
    task.scratch = scratch.Get(AttentionScratch(task.queries, group, args.head_dim));
    kernel.attend(args, task);
  });
}

}  // namespace quiver::cpu
