// What the CUDA backend asks of a model family: the operations of one layer on some rows, in order
// on a stream.
#ifndef QUIVER_ENGINE_RUN_CUDA_CUDA_MODEL_H_
#define QUIVER_ENGINE_RUN_CUDA_CUDA_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/model_config.h"
#include "engine/run/cuda/forward_shape.h"
#include "engine/run/cuda/matmul.h"
#include "engine/run/cuda/matmul_tuner.h"
#include "engine/run/cuda/weight_layout.h"

namespace quiver {

// Rows that an operation works on, in device memory.
struct RowBlock {
  int64_t rows = 0;
  const int32_t* ids = nullptr;
  const int32_t* positions = nullptr;
  float* residual = nullptr;  // [rows, hidden]
  // Where pooled rows come from: row i is row pooled_rows[i] of the batch's residual and
  // projection. Null but for operations on pooled rows.
  const int32_t* pooled_rows = nullptr;
  const float* all_residual = nullptr;
  const void* all_projected = nullptr;
  // Scratch: the input of the next product, and the MLP's inside.
  void* half = nullptr;   // [rows, hidden]
  void* inner = nullptr;  // [rows, inner_width]
  // Of a product's input, where that is in FP8: then its codes lie in `half` or `inner`.
  float* row_scales = nullptr;  // [rows]
  // [rows, query | key | value], or for pooled rows [rows, query]; attention leaves its output in
  // place of the queries.
  void* projected = nullptr;
  int64_t projected_stride = 0;
  MatmulScratch scratch;
};

// Immutable once it is bound. Calls are made by one thread at a time and only put work on the
// block's stream.
class CudaModel {
 public:
  virtual ~CudaModel() = default;

  // Where the weights that `layout` gave places lie; what is not a tensor of the checkpoint is made
  // there, on `stream`.
  virtual absl::Status Bind(std::byte* weights, cudaStream_t stream) = 0;

  // The residual from ids, and in `half` the first layer's input, in the form that it is asked for.
  virtual absl::Status Embed(const RowBlock& block) = 0;

  // `layer`'s queries, keys and values from its input in `half`, ready for attention. A pruned last
  // layer may leave the queries out.
  virtual absl::Status Project(int layer, const RowBlock& block) = 0;

  // The queries of a pruned last layer's pooled rows.
  virtual absl::Status ProjectPooled(const RowBlock& block) = 0;

  // The rest of `layer`, from attention's output to the residual and, but after the last, the next
  // layer's input in `half`.
  virtual absl::Status Finish(int layer, const RowBlock& block) = 0;

  // Whether products get their FP8 inputs as such, so that they need no room to make them.
  virtual bool quantizes_inputs() const { return false; }

  // What Decode() works in, zero before its first call; 0 if this model does not run so.
  virtual int64_t DecoderBytes() const { return 0; }
  // Whether Decode() runs on the current device.
  virtual bool DecodesHere() const { return false; }

  // All of the above for at most kMaxDecoderRows rows in one launch, from ids to the residual of
  // the rows in `pooled`. Its rows' projection, and `half`, stay as they are.
  virtual absl::Status Decode(const RowBlock& block, const RowBlock& pooled, void* workspace) {
    (void)block, (void)pooled, (void)workspace;
    return absl::UnimplementedError("this model does not run in one launch");
  }

  // The norm of pooled rows before they become vectors; null if there is none.
  virtual const float* final_norm() const = 0;

  // Its products, for as many rows as `block` and `pooled` have.
  virtual std::vector<MatmulCase> Matmuls(const RowBlock& block, const RowBlock& pooled) const = 0;
};

struct CudaModelOptions {
  ForwardShape shape;
  ComputeType type = ComputeType::kBfloat16;
  // Positions are below this.
  int64_t max_positions = 0;
};

// Gives every weight a place in `layout`, whose status tells what is wrong with the checkpoint.
// `matmul` must outlive the model.
std::unique_ptr<CudaModel> CreateQwen3Cuda(const ModelConfig& config,
                                           const CudaModelOptions& options, WeightLayout* layout,
                                           Matmul* matmul);
std::unique_ptr<CudaModel> CreateBertCuda(const ModelConfig& config,
                                          const CudaModelOptions& options, WeightLayout* layout,
                                          Matmul* matmul);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_CUDA_MODEL_H_
