#include "engine/run/cuda/cuda_graphs.h"

#include "engine/run/cuda/cuda_status.h"
#include "engine/run/packed_batch.h"

namespace quiver {
namespace {

// A batch that fills the bucket's tokens, with as many sequences as it takes.
PackedBatch FullBatch(const GraphBucket& bucket) {
  PackedBatch batch;
  for (int64_t s = 0; s < bucket.sequences; ++s) {
    const int64_t begin = bucket.tokens * s / bucket.sequences;
    const int64_t end = bucket.tokens * (s + 1) / bucket.sequences;
    batch.Append(std::vector<TokenId>(static_cast<size_t>(end - begin), 0),
                 OutputSpec{.dimensions = 1});
  }
  return batch;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaGraphs>> CudaGraphs::Capture(const CudaExecutor& executor,
                                                                PassRegion* region) {
  std::unique_ptr<CudaGraphs> graphs(new CudaGraphs(region));
  for (const GraphBucket& bucket : graphs->buckets_) {
    const absl::Status status = graphs->CaptureOne(executor, bucket);
    if (!status.ok()) return status;
  }
  return graphs;
}

CudaGraphs::~CudaGraphs() {
  for (const cudaGraphExec_t graph : graphs_) cudaGraphExecDestroy(graph);
}

absl::Status CudaGraphs::CaptureOne(const CudaExecutor& executor, const GraphBucket& bucket) {
  const CudaExecutor::Options& options = executor.options();
  const PackedBatch batch = FullBatch(bucket);
  const DeviceBatch device =
      MakePaddedBatch(batch, options.shape, options.pooling, options.attention, bucket);
  std::vector<int64_t> offsets;
  FillInput(batch, device, options.shape, options.pooling, region_->host_input(), &offsets);
  const int64_t output_bytes =
      CudaExecutor::OutputBytes(*region_, bucket.sequences * options.shape.hidden * 4);

  const cudaStream_t stream = region_->stream();
  CudaCalls calls;
  const auto enqueue = [&] {
    calls(region_->CopyInput(device.input.bytes), "copying a pass's input");
    for (const PassOp& op : executor.Ops(device, *region_)) {
      calls(executor.Enqueue(op, device, *region_));
    }
    calls(region_->CopyOutput(output_bytes), "copying a pass's output");
  };
  enqueue();
  calls(cudaStreamSynchronize(stream), "running a pass");
  if (!calls.ok()) return calls.status();

  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  calls(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a capture");
  enqueue();
  // Ended whatever happened, or the stream stays as it is.
  calls(cudaStreamEndCapture(stream, &graph), "capturing a pass");
  if (calls.ok()) calls(cudaGraphInstantiate(&executable, graph, 0), "making a graph");
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (executable == nullptr) return calls.status();
  graphs_.push_back(executable);
  calls(cudaGraphUpload(executable, stream), "uploading a graph");
  calls(cudaGraphLaunch(executable, stream), "launching a graph");
  calls(cudaStreamSynchronize(stream), "running a graph");
  return calls.status();
}

absl::Status CudaGraphs::Launch(int bucket) const {
  return CudaStatus(cudaGraphLaunch(graphs_[bucket], region_->stream()), "launching a graph");
}

}  // namespace quiver
