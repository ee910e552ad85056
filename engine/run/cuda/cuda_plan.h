// What a model takes of a card, before anything of it is taken. Needs no device.
#ifndef QUIVER_ENGINE_RUN_CUDA_CUDA_PLAN_H_
#define QUIVER_ENGINE_RUN_CUDA_CUDA_PLAN_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/run/cuda/cuda_backend.h"
#include "engine/run/cuda/cuda_device.h"
#include "engine/run/cuda/cuda_memory.h"
#include "engine/run/cuda/cuda_model.h"
#include "engine/run/cuda/forward_shape.h"
#include "engine/run/cuda/matmul.h"
#include "engine/run/cuda/weight_layout.h"

namespace quiver {

// A launch of attention, and a chunk of everything else, is predicted to be no longer than this.
inline constexpr double kMaxOperationUs = 3000;

struct CudaPlan {
  ForwardShape shape;
  // Where every weight goes, and in which form.
  WeightLayout layout;
  std::unique_ptr<CudaModel> model = nullptr;
  // Whether inputs of products are quantized as well.
  bool quantizes_inputs = false;
};

// `takes_fp8`: whether the device multiplies in FP8 with scales for rows. `matmul` is what the
// model runs with and must outlive it; null for one that is not run. Errors as
// CreateCudaBackend's.
absl::StatusOr<CudaPlan> PlanModel(const ModelConfig& config, const Weights* weights,
                                   const CudaBackendOptions& options, bool takes_fp8,
                                   Matmul* matmul);

// What of the memory of `device` is spent on what. `decodes`: whether passes of few tokens run in
// one launch there.
absl::StatusOr<MemoryGrant> PlanMemory(const ModelConfig& config, const CudaPlan& plan,
                                       const CudaBackendOptions& options, const CudaDevice& device,
                                       bool decodes);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_CUDA_PLAN_H_
