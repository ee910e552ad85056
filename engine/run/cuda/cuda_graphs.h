// Passes of few tokens, captured once as graphs: launched as a whole, they do not wait for the host
// between their kernels.
#ifndef QUIVER_ENGINE_RUN_CUDA_CUDA_GRAPHS_H_
#define QUIVER_ENGINE_RUN_CUDA_CUDA_GRAPHS_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/run/cuda/cuda_executor.h"
#include "engine/run/cuda/graph_bucket.h"
#include "engine/run/cuda/pass_region.h"

namespace quiver {

class CudaGraphs {
 public:
  // Captures a graph for each bucket of the region, after running each once, so that all code is
  // loaded. Where the model can run all layers in one launch, that is measured too, and the faster
  // of both kept. `region` must outlive this and stand still meanwhile.
  static absl::StatusOr<std::unique_ptr<CudaGraphs>> Capture(const CudaExecutor& executor,
                                                             PassRegion* region);
  ~CudaGraphs();

  const std::vector<GraphBucket>& buckets() const { return buckets_; }
  // Puts the bucket's pass on the region's stream, between the copies of its input and its output.
  absl::Status Launch(int bucket) const;

 private:
  explicit CudaGraphs(PassRegion* region)
      : region_(region), buckets_(GraphBuckets(region->limits())) {}
  absl::Status CaptureOne(const CudaExecutor& executor, const GraphBucket& bucket);
  // A graph of `ops`, run once.
  absl::Status Record(const CudaExecutor& executor, const DeviceBatch& batch,
                      const std::vector<PassOp>& ops, cudaGraphExec_t* executable) const;
  absl::StatusOr<float> FastestMs(cudaGraphExec_t graph) const;

  PassRegion* const region_;
  std::vector<GraphBucket> buckets_;
  std::vector<cudaGraphExec_t> graphs_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_CUDA_GRAPHS_H_
