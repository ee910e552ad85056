// What the CPU backend asks of a model family: the arithmetic of one layer on some rows, in three
// parts around attention.
#ifndef QUIVER_ENGINE_RUN_CPU_MODEL_H_
#define QUIVER_ENGINE_RUN_CPU_MODEL_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "kernels/cpu/thread_pool.h"

namespace quiver {

// Which columns of a layer's projection [query | key | value] are asked for.
enum class Projection : uint8_t { kAll, kQuery, kKeyValue };

// Immutable but for scratch memory: its calls must not overlap. Every row of a result depends on
// the same row of the input alone.
class CpuModel {
 public:
  virtual ~CpuModel() = default;

  // hidden [rows, hidden_size] = embeddings of `ids` at `positions`.
  virtual void Embed(const int32_t* ids, const int32_t* positions, int64_t rows,
                     float* hidden) const = 0;

  // Columns of `layer`'s projection of `hidden` [rows, hidden_size], ready for attention (biased,
  // or normalized and rotated). Row r's first asked-for column is at out + r * stride. A layer that
  // was asked for with kQuery or kKeyValue must be the last, in a model made with `prune_last`; and
  // then that layer knows no kAll.
  virtual void Project(int layer, Projection which, const float* hidden, const int32_t* positions,
                       int64_t rows, float* out, int64_t stride) const = 0;

  // The rest of `layer` after attention: `attended` [rows, num_heads * head_dim] with the stride
  // between rows; `hidden` [rows, hidden_size] in place.
  virtual void FinishLayer(int layer, const float* attended, int64_t stride, int64_t rows,
                           float* hidden) const = 0;

  // What follows the last layer, in place.
  virtual void FinishRows(int64_t rows, float* hidden) const = 0;
};

struct CpuModelOptions {
  // Most rows of a call.
  int64_t max_rows = 0;
  // Positions are below this.
  int64_t max_positions = 0;
  // Whether the last layer is asked for keys and values of all tokens, queries of some.
  bool prune_last = false;
};

// `weights` must outlive the model where a table is read from its map; `pool` must outlive it too.
absl::StatusOr<std::unique_ptr<CpuModel>> CreateQwen3Cpu(const ModelConfig& config,
                                                         const Weights& weights,
                                                         const CpuModelOptions& options,
                                                         cpu::ThreadPool* pool);
absl::StatusOr<std::unique_ptr<CpuModel>> CreateBertCpu(const ModelConfig& config,
                                                        const Weights& weights,
                                                        const CpuModelOptions& options,
                                                        cpu::ThreadPool* pool);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CPU_MODEL_H_
