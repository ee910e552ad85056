// Puts a pass's operations on a stream, one by one; knows where each finds its rows.
#ifndef QUIVER_ENGINE_RUN_CUDA_CUDA_EXECUTOR_H_
#define QUIVER_ENGINE_RUN_CUDA_CUDA_EXECUTOR_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/model_config.h"
#include "engine/run/cuda/batch_input.h"
#include "engine/run/cuda/cuda_model.h"
#include "engine/run/cuda/forward_shape.h"
#include "engine/run/cuda/pass_region.h"
#include "engine/run/cuda/step_plan.h"

namespace quiver {

class CudaExecutor {
 public:
  struct Options {
    ForwardShape shape;
    Pooling pooling = Pooling::kLastToken;
    float norm_eps = 0;
    AttentionChoice attention;
    DeviceRates rates;
  };
  // `model` must outlive this.
  CudaExecutor(const Options& options, CudaModel* model) : options_(options), model_(model) {}

  const Options& options() const { return options_; }

  // The operations of a pass over `batch` in `region`.
  std::vector<PassOp> Ops(const DeviceBatch& batch, const PassRegion& region) const;

  // Whether the same can be done by DecodeOps().
  bool CanDecode(const DeviceBatch& batch, const PassRegion& region) const;
  // All layers in one launch, of which two must not be under way at once.
  std::vector<PassOp> DecodeOps(const DeviceBatch& batch) const;

  // Puts one of them on the region's stream. Those before it must have been put there, and the
  // batch's input.
  absl::Status Enqueue(const PassOp& op, const DeviceBatch& batch, const PassRegion& region) const;

  // Bytes of the output up to the end of vectors that take `vector_bytes`.
  static int64_t OutputBytes(const PassRegion& region, int64_t vector_bytes) {
    return region.layout().vectors - region.layout().results + vector_bytes;
  }

  // The model's products, for as many rows as the region may have, and what they may use there.
  std::vector<MatmulCase> Matmuls(const PassRegion& region) const;
  MatmulScratch Scratch(const PassRegion& region) const;

 private:
  RowBlock Chunk(const DeviceBatch& batch, const PassRegion& region, int64_t begin,
                 int64_t rows) const;
  RowBlock Pooled(const DeviceBatch& batch, const PassRegion& region) const;
  absl::Status Attend(const AttentionLaunch& launch, bool pooled, const DeviceBatch& batch,
                      const PassRegion& region) const;
  absl::Status Encode(const DeviceBatch& batch, const PassRegion& region) const;

  const Options options_;
  CudaModel* const model_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_CUDA_EXECUTOR_H_
