#include "engine/run/cuda/cuda_graphs.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/run/cuda/cuda_status.h"
#include "engine/run/packed_batch.h"

namespace quiver {
namespace {

constexpr int kTimedLaunches = 10;

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
  for (const cudaGraphExec_t graph : graphs_) {
    if (graph != nullptr) cudaGraphExecDestroy(graph);
  }
}

absl::Status CudaGraphs::CaptureOne(const CudaExecutor& executor, const GraphBucket& bucket) {
  const CudaExecutor::Options& options = executor.options();
  const PackedBatch batch = FullBatch(bucket);
  const DeviceBatch device =
      MakePaddedBatch(batch, options.shape, options.pooling, options.attention, bucket);
  std::vector<int64_t> offsets;
  PassMemory* memory = region_->TakeMemory();
  if (memory == nullptr) return absl::InternalError("graphs are captured while passes run");
  FillInput(batch, device, options.shape, options.pooling, memory->input.get(), &offsets);
  CudaCalls calls;
  calls(region_->CopyInput(*memory, device.input.bytes), "copying a pass's input");
  calls(cudaStreamSynchronize(region_->stream()), "copying a pass's input");
  memory->in_use = false;
  if (!calls.ok()) return calls.status();

  graphs_.push_back(nullptr);
  const absl::Status status =
      Record(executor, device, executor.Ops(device, *region_), &graphs_.back());
  if (!status.ok() || !executor.CanDecode(device, *region_)) return status;
  graphs_.push_back(nullptr);
  const absl::Status decodes =
      Record(executor, device, executor.DecodeOps(device), &graphs_.back());
  if (!decodes.ok()) return decodes;
  const absl::StatusOr<float> steps_ms = FastestMs(*(graphs_.end() - 2));
  if (!steps_ms.ok()) return steps_ms.status();
  const absl::StatusOr<float> decode_ms = FastestMs(graphs_.back());
  if (!decode_ms.ok()) return decode_ms.status();
  if (*decode_ms < *steps_ms) std::swap(graphs_.back(), *(graphs_.end() - 2));
  cudaGraphExecDestroy(graphs_.back());
  graphs_.pop_back();
  return absl::OkStatus();
}

absl::Status CudaGraphs::Record(const CudaExecutor& executor, const DeviceBatch& batch,
                                const std::vector<PassOp>& ops, cudaGraphExec_t* executable) const {
  const cudaStream_t stream = region_->stream();
  CudaCalls calls;
  const auto enqueue = [&] {
    for (const PassOp& op : ops) calls(executor.Enqueue(op, batch, *region_));
  };
  enqueue();
  calls(cudaStreamSynchronize(stream), "running a pass");
  if (!calls.ok()) return calls.status();

  cudaGraph_t graph = nullptr;
  calls(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a capture");
  enqueue();
  // Ended whatever happened, or the stream stays as it is.
  calls(cudaStreamEndCapture(stream, &graph), "capturing a pass");
  if (calls.ok()) calls(cudaGraphInstantiate(executable, graph, 0), "making a graph");
  if (graph != nullptr) cudaGraphDestroy(graph);
  if (*executable == nullptr) return calls.status();
  calls(cudaGraphUpload(*executable, stream), "uploading a graph");
  calls(cudaGraphLaunch(*executable, stream), "launching a graph");
  calls(cudaStreamSynchronize(stream), "running a graph");
  return calls.status();
}

absl::StatusOr<float> CudaGraphs::FastestMs(cudaGraphExec_t graph) const {
  const cudaStream_t stream = region_->stream();
  CudaCalls calls;
  float fastest = std::numeric_limits<float>::infinity();
  for (int i = 0; i < kTimedLaunches && calls.ok(); ++i) {
    float ms = 0;
    calls(cudaEventRecord(region_->begin(0), stream), "timing a graph");
    calls(cudaGraphLaunch(graph, stream), "launching a graph");
    calls(cudaEventRecord(region_->end(0), stream), "timing a graph");
    calls(cudaEventSynchronize(region_->end(0)), "running a graph");
    if (calls.ok()) {
      calls(cudaEventElapsedTime(&ms, region_->begin(0), region_->end(0)), "timing a graph");
    }
    fastest = std::min(fastest, ms);
  }
  if (!calls.ok()) return calls.status();
  return fastest;
}

absl::Status CudaGraphs::Launch(int bucket) const {
  return CudaStatus(cudaGraphLaunch(graphs_[bucket], region_->stream()), "launching a graph");
}

}  // namespace quiver
