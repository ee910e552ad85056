#ifndef QUIVER_ENGINE_RUN_CUDA_CUDA_PASS_H_
#define QUIVER_ENGINE_RUN_CUDA_CUDA_PASS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/run/backend.h"
#include "engine/run/cuda/batch_input.h"
#include "engine/run/cuda/cuda_executor.h"
#include "engine/run/cuda/cuda_graphs.h"
#include "engine/run/cuda/pass_region.h"
#include "engine/run/cuda/step_plan.h"

namespace quiver {

// One forward pass on the device: a graph that is launched as a whole, or steps, of which the next
// is put behind the one that runs, so that the device does not wait for the host. When Run returns
// before the end, at most PassRegion::kStepsInFlight - 1 steps are still under way.
class CudaPass : public Pass {
 public:
  // All must outlive this. `memory` is the region's, in use until this is destroyed. `graphs` are
  // the region's, or null. The region is in use from Claim until the pass is complete, or
  // destroyed.
  CudaPass(const CudaExecutor& executor, const CudaGraphs* graphs, PassRegion* region,
           PassMemory* memory, const PackedBatch& batch);
  ~CudaPass() override;

  const PassRegion* region() const { return region_; }

  bool Claim() override;

  absl::StatusOr<bool> Run(int64_t max_us) override;
  std::vector<double> StepMs() const override { return step_ms_; }
  std::vector<absl::StatusOr<EncodedVector>> Finish() override;

 private:
  absl::Status LaunchNext();
  absl::Status WaitForOldest();

  const CudaExecutor& executor_;
  const CudaGraphs* const graphs_;
  PassRegion* const region_;
  PassMemory* const memory_;
  bool has_region_ = false;
  const std::vector<OutputSpec> outputs_;
  // -1: by steps.
  int bucket_ = -1;
  DeviceBatch batch_;
  std::vector<int64_t> offsets_;
  std::vector<PassOp> ops_;
  std::vector<size_t> step_ends_;
  // Steps that were put on the stream, and that are known to have ended.
  int64_t launched_ = 0;
  int64_t ended_ = 0;
  std::vector<double> step_ms_;
  absl::Status status_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_CUDA_PASS_H_
