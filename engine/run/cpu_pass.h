// One forward pass on the CPU, cut into steps: chunks of rows, and of attention's queries.
#ifndef QUIVER_ENGINE_RUN_CPU_PASS_H_
#define QUIVER_ENGINE_RUN_CPU_PASS_H_

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/run/backend.h"
#include "engine/run/cpu_model.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/thread_pool.h"

namespace quiver {

// What all passes of a backend share.
struct CpuPassContext {
  ModelConfig config;
  const CpuModel* model = nullptr;
  cpu::ThreadPool* pool = nullptr;
  // Whether the last layer runs for one token of each sequence.
  bool prune_last = false;
  // Rows of a step.
  int64_t chunk_rows = 0;
  // Multiply-adds of a step of attention.
  int64_t attention_macs = 0;
  // Keys and values of prefixes, [num_layers, prefix_tokens, key | value]; null if none are kept.
  float* prefixes = nullptr;
  int64_t prefix_tokens = 0;

  int64_t query_width() const { return int64_t{config.num_heads} * config.head_dim; }
  int64_t key_width() const { return int64_t{config.num_kv_heads} * config.head_dim; }
  // Columns of a layer's projection.
  int64_t projection_width() const { return query_width() + 2 * key_width(); }
  float* prefix(int layer, int64_t row) const {
    return prefixes + (layer * prefix_tokens + row) * 2 * key_width();
  }
};

// Memory for activations of a batch; of a large one only what is touched is resident.
class FloatBuffer {
 public:
  explicit FloatBuffer(int64_t count)
      : data_(static_cast<float*>(std::aligned_alloc(
            kAlignment,
            (static_cast<size_t>(count) * sizeof(float) / kAlignment + 1) * kAlignment))) {
    if (data_ == nullptr) std::abort();
  }
  float* data() { return data_.get(); }

 private:
  static constexpr size_t kAlignment = 64;
  struct Free {
    void operator()(float* data) const { std::free(data); }
  };
  std::unique_ptr<float, Free> data_;
};

// The activations of one pass at a time; nothing in it outlives a pass's use of it.
struct CpuPassBuffers {
  CpuPassBuffers(const CpuPassContext& context, int64_t max_tokens);

  // [max_tokens, hidden_size], and a layer's projections [max_tokens, query | key | value].
  FloatBuffer hidden;
  FloatBuffer projected;
  // With prune_last, the sequences' pooled tokens: [max_tokens, hidden_size], and their queries.
  FloatBuffer pooled_hidden;
  FloatBuffer pooled_query;
  // Set while a pass uses this.
  std::atomic<bool> in_use{false};
};

class CpuPass : public Pass {
 public:
  using AllBuffers = std::vector<std::unique_ptr<CpuPassBuffers>>;

  // Both must outlive this. One of `buffers` is in use from Claim to completion or destruction.
  CpuPass(const CpuPassContext& context, const AllBuffers* buffers, PackedBatch batch);
  ~CpuPass() override;

  bool Claim() override;
  absl::StatusOr<bool> Run(int64_t max_us) override;
  std::vector<absl::StatusOr<EncodedVector>> Finish() override { return std::move(results_); }

 private:
  // In the order in which a layer goes through them; the first and the last but once.
  enum class Stage {
    kEmbed,
    kProject,
    kProjectPooled,
    kAttend,
    kFinishLayer,
    kFinishRows,
    kEncode,
    kDone
  };

  void Step();
  // To `stage`'s first row.
  void Enter(Stage stage);
  void EnterLayer(int layer);
  void ProjectPooledRows(int64_t begin, int64_t rows);
  // What of the layer's keys and values is to be kept.
  void StorePrefixes();
  std::vector<cpu::AttentionSpan> Spans() const;
  // Attends from next_span_ on for about a step's worth; false when none is left.
  bool AttendSome();
  void EncodeAll();
  absl::StatusOr<EncodedVector> Encode(int sequence, float* scratch);

  bool pruned() const { return context_.prune_last && layer_ == context_.config.num_layers - 1; }
  // Whether the stage runs for every token, not for one of each sequence.
  bool RunsAllTokens() const {
    return stage_ == Stage::kEmbed || stage_ == Stage::kProject || !pruned();
  }
  // The token that stands for a sequence, where one does.
  int64_t PooledToken(int sequence) const;

  const CpuPassContext& context_;
  const AllBuffers* const all_buffers_;
  // Null but from Claim to completion.
  CpuPassBuffers* buffers_ = nullptr;
  const PackedBatch batch_;
  std::vector<int32_t> positions_;
  std::vector<int32_t> pooled_positions_;

  Stage stage_ = Stage::kEmbed;
  int layer_ = 0;
  // Next row of the stage, and how many there are.
  int64_t row_ = 0;
  int64_t num_rows_ = 0;
  // What is left to attend to in this layer, the first perhaps in part.
  std::vector<cpu::AttentionSpan> spans_;
  size_t next_span_ = 0;
  std::vector<absl::StatusOr<EncodedVector>> results_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CPU_PASS_H_
