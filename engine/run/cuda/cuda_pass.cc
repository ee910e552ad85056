#include "engine/run/cuda/cuda_pass.h"

#include <chrono>

#include "engine/run/cuda/cuda_status.h"
#include "engine/run/encoding.h"
#include "kernels/cuda/pool_encode.h"

namespace quiver {
namespace {

// Operations are put together to steps that are predicted to be no longer than this; they must end
// within 4 ms.
constexpr double kMaxStepUs = 2700;

}  // namespace

CudaPass::CudaPass(const CudaExecutor& executor, const CudaGraphs* graphs, PassRegion* region,
                   PassMemory* memory, const PackedBatch& batch)
    : executor_(executor),
      graphs_(graphs),
      region_(region),
      memory_(memory),
      outputs_(batch.outputs) {
  const CudaExecutor::Options& options = executor.options();
  if (graphs != nullptr) {
    bucket_ = FindBucket(graphs->buckets(), batch.num_tokens(), batch.num_sequences());
  }
  if (bucket_ >= 0) {
    batch_ = MakePaddedBatch(batch, options.shape, options.pooling, options.attention,
                             graphs->buckets()[bucket_]);
    step_ends_ = {0};
  } else {
    batch_ = MakeDeviceBatch(batch, options.shape, options.pooling, options.attention);
    ops_ = executor.Ops(batch_, *region);
    step_ends_ = CutSteps(ops_, kMaxStepUs);
  }
  FillInput(batch, batch_, options.shape, options.pooling, memory->input.get(), &offsets_);
}

CudaPass::~CudaPass() {
  // What is under way still reads and writes the region.
  if (launched_ > ended_) cudaStreamSynchronize(region_->stream());
  if (has_region_) region_->in_use = false;
  memory_->in_use = false;
}

bool CudaPass::Claim() { return has_region_ = !region_->in_use.exchange(true); }

absl::Status CudaPass::LaunchNext() {
  const auto step = static_cast<size_t>(launched_);
  CudaCalls calls;
  // Counted first: after an error something may be under way.
  ++launched_;
  if (bucket_ < 0) {
    calls(cudaEventRecord(region_->begin(launched_ - 1), region_->stream()), "timing a step");
  }
  if (step == 0) calls(region_->CopyInput(*memory_, batch_.input.bytes), "copying a pass's input");
  if (bucket_ >= 0) {
    calls(graphs_->Launch(bucket_));
  } else {
    for (size_t i = step == 0 ? 0 : step_ends_[step - 1]; i < step_ends_[step]; ++i) {
      calls(executor_.Enqueue(ops_[i], batch_, *region_));
    }
  }
  if (step + 1 == step_ends_.size()) {
    calls(region_->CopyOutput(*memory_, CudaExecutor::OutputBytes(*region_, offsets_.back())),
          "copying a pass's output");
  }
  calls(cudaEventRecord(region_->end(launched_ - 1), region_->stream()), "recording a step");
  return calls.status();
}

absl::Status CudaPass::WaitForOldest() {
  CudaCalls calls;
  calls(cudaEventSynchronize(region_->end(ended_)), "running a step");
  if (calls.ok() && bucket_ < 0) {
    float ms = 0;
    calls(cudaEventElapsedTime(&ms, region_->begin(ended_), region_->end(ended_)), "timing a step");
    step_ms_.push_back(ms);
  }
  if (calls.ok()) ++ended_;
  return calls.status();
}

absl::StatusOr<bool> CudaPass::Run(int64_t max_us) {
  const auto start = std::chrono::steady_clock::now();
  const auto num_steps = static_cast<int64_t>(step_ends_.size());
  while (status_.ok() && ended_ < num_steps) {
    while (status_.ok() && launched_ < num_steps &&
           launched_ - ended_ < PassRegion::kStepsInFlight) {
      status_ = LaunchNext();
    }
    if (status_.ok()) status_ = WaitForOldest();
    // Not the other way round: a large max_us in nanoseconds would overflow.
    const auto elapsed = std::chrono::steady_clock::now() - start;
    if (std::chrono::duration_cast<std::chrono::microseconds>(elapsed).count() >= max_us) break;
  }
  if (!status_.ok()) return status_;
  if (ended_ < num_steps) return false;
  has_region_ = false;
  region_->in_use = false;
  return true;
}

std::vector<absl::StatusOr<EncodedVector>> CudaPass::Finish() {
  const std::byte* output = memory_->output.get();
  const auto* results = reinterpret_cast<const PoolResult*>(output);
  const std::byte* vectors = output + CudaExecutor::OutputBytes(*region_, 0);
  std::vector<absl::StatusOr<EncodedVector>> encoded;
  encoded.reserve(outputs_.size());
  for (size_t s = 0; s < outputs_.size(); ++s) {
    const absl::Status status = VectorError(results[s].status);
    if (!status.ok()) {
      encoded.emplace_back(status);
      continue;
    }
    EncodedVector vector;
    vector.data.assign(reinterpret_cast<const char*>(vectors + offsets_[s]),
                       OutputBytes(outputs_[s].type, outputs_[s].dimensions));
    vector.scale = results[s].scale;
    encoded.emplace_back(std::move(vector));
  }
  return encoded;
}

}  // namespace quiver
