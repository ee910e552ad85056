#include "engine/run/cuda/cuda_backend.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/run/cuda/cuda_device.h"
#include "engine/run/cuda/cuda_executor.h"
#include "engine/run/cuda/cuda_graphs.h"
#include "engine/run/cuda/cuda_memory.h"
#include "engine/run/cuda/cuda_pass.h"
#include "engine/run/cuda/cuda_plan.h"
#include "engine/run/cuda/cuda_status.h"
#include "engine/run/cuda/cuda_warm_up.h"
#include "engine/run/cuda/weight_loader.h"

namespace quiver {
namespace {

// Steps take milliseconds; code that the driver loads, or another process on the card, some more.
constexpr absl::Duration kLongestCall = absl::Minutes(1);

class CudaBackend : public Backend {
 public:
  absl::Status Load(const ModelConfig& config, const Weights* weights,
                    const CudaBackendOptions& options);

  const BackendInfo& info() const override { return info_; }
  absl::StatusOr<std::unique_ptr<Pass>> Begin(PackedBatch batch) override;
  absl::StatusOr<std::unique_ptr<Pass>> Prepare(PackedBatch batch, const Pass& before) override;
  absl::Status CheckDevice() override;

 private:
  absl::Status TakeMemory(const WeightLayout& layout, const Weights* weights);
  void MakeExecutor(const ModelConfig& config, const CudaBackendOptions& options);
  absl::Status WarmUp();
  absl::Status Account(const CudaOptions& options);
  // A pass without a place yet, for a region that is free, or will be: `free`, unless null.
  absl::StatusOr<std::unique_ptr<CudaPass>> Make(const PackedBatch& batch, const PassRegion* free);

  CudaDevice device_;
  ForwardShape shape_;
  MemoryGrant grant_;
  BackendInfo info_;
  // In order of construction: what stands below uses what stands above.
  std::unique_ptr<Matmul> matmul_;
  std::unique_ptr<CudaModel> model_;
  int64_t weight_bytes_ = 0;
  DeviceMemory weights_;
  DeviceMemory activations_;
  std::unique_ptr<PassRegion> first_;
  std::unique_ptr<PassRegion> second_;
  std::unique_ptr<CudaExecutor> executor_;
  std::unique_ptr<CudaGraphs> graphs_;
  int64_t graph_bytes_ = 0;
  int64_t code_bytes_ = 0;
  bool quantizes_inputs_ = false;
  // Whether algorithms were measured in this start.
  bool measured_ = false;
};

absl::Status CheckTokens(const char* name, int64_t value, int64_t min, int64_t max) {
  if (value == 0 || (value >= min && value <= max)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " must be 0, or from ", min, " to ", max, ", is ", value));
}

absl::Status CudaBackend::Load(const ModelConfig& config, const Weights* weights,
                               const CudaBackendOptions& options) {
  absl::Status status = CheckCudaModel(config);
  if (!status.ok()) return status;
  status = CheckTokens("max_input_tokens", options.max_input_tokens, 1, config.max_positions);
  if (status.ok()) {
    status = CheckTokens("max_batch_tokens", options.max_batch_tokens,
                         std::max(options.max_input_tokens, 1), 1 << 24);
  }
  if (!status.ok()) return status;

  absl::StatusOr<CudaDevice> device = OpenCudaDevice(options.ordinal, options.cuda.force_portable);
  if (!device.ok()) return device.status();
  device_ = *std::move(device);
  const HalfType type =
      options.cuda.dtype == ComputeType::kBfloat16 ? HalfType::kBf16 : HalfType::kF16;
  {
    const DeviceUseGrowth code(&code_bytes_);
    absl::StatusOr<std::unique_ptr<Matmul>> matmul =
        Matmul::Create(type, options.cuda.force_portable);
    if (!matmul.ok()) return matmul.status();
    matmul_ = *std::move(matmul);
  }

  absl::StatusOr<CudaPlan> plan =
      PlanModel(config, weights, options, matmul_->takes_fp8(), matmul_.get());
  if (!plan.ok()) return plan.status();
  const bool decodes = !options.cuda.force_portable && plan->model->DecodesHere();
  absl::StatusOr<MemoryGrant> grant = PlanMemory(config, *plan, options, device_, decodes);
  if (!grant.ok()) return grant.status();
  grant_ = *std::move(grant);
  shape_ = plan->shape;
  quantizes_inputs_ = plan->quantizes_inputs;
  weight_bytes_ = plan->layout.bytes();
  model_ = std::move(plan->model);
  status = TakeMemory(plan->layout, weights);
  if (!status.ok()) return status;
  MakeExecutor(config, options);
  {
    const DeviceUseGrowth code(&code_bytes_);
    const absl::StatusOr<bool> measured =
        ChooseAlgorithms(device_, options.cuda, *executor_, *first_, matmul_.get());
    if (!measured.ok()) return measured.status();
    measured_ = *measured;
  }
  status = WarmUp();
  if (status.ok()) status = Account(options.cuda);
  return status;
}

absl::Status CudaBackend::TakeMemory(const WeightLayout& layout, const Weights* weights) {
  absl::StatusOr<DeviceMemory> block = AllocateDevice(weight_bytes_, "weights");
  if (!block.ok()) return block.status();
  weights_ = *std::move(block);
  {
    const DeviceUseGrowth code(&code_bytes_);
    const absl::Status filled = weights != nullptr ? LoadWeights(layout, *weights, weights_.get())
                                                   : MakeRandomWeights(layout, weights_.get());
    if (!filled.ok()) return filled;
  }

  const ActivationPlan& plan = grant_.activations;
  block = AllocateDevice(plan.bytes, "activations");
  if (!block.ok()) return block.status();
  activations_ = *std::move(block);
  absl::StatusOr<std::unique_ptr<PassRegion>> region =
      PassRegion::Create(PassRegion::Kind::kBulk, shape_, plan.first, activations_.get());
  if (!region.ok()) return region.status();
  first_ = *std::move(region);
  region = PassRegion::Create(PassRegion::Kind::kQuick, shape_, plan.second,
                              activations_.get() + first_->layout().bytes);
  if (!region.ok()) return region.status();
  second_ = *std::move(region);
  const DeviceUseGrowth code(&code_bytes_);
  return model_->Bind(weights_.get(), first_->stream());
}

void CudaBackend::MakeExecutor(const ModelConfig& config, const CudaBackendOptions& options) {
  CudaExecutor::Options executor;
  executor.shape = shape_;
  executor.pooling = config.pooling;
  executor.norm_eps = config.norm_eps;
  executor.rates = device_.rates;
  executor.attention.shape = {.num_heads = shape_.num_heads,
                              .num_kv_heads = shape_.num_kv_heads,
                              .head_dim = shape_.head_dim,
                              .causal = shape_.causal,
                              .type = options.cuda.dtype == ComputeType::kBfloat16
                                          ? AttentionType::kBf16
                                          : AttentionType::kF16};
  executor.attention.path = device_.path;
  executor.attention.max_launch_flop = kMaxOperationUs * device_.rates.attention_flop_per_us;
  executor_ = std::make_unique<CudaExecutor>(executor, model_.get());
}

absl::Status CudaBackend::WarmUp() {
  {
    const DeviceUseGrowth growth(&graph_bytes_);
    absl::StatusOr<std::unique_ptr<CudaGraphs>> graphs =
        CudaGraphs::Capture(*executor_, second_.get());
    if (!graphs.ok()) return graphs.status();
    graphs_ = *std::move(graphs);
  }

  const DeviceUseGrowth code(&code_bytes_);
  for (PassRegion* region : {first_.get(), second_.get()}) {
    const absl::Status status = LoadKernels(*executor_, grant_.max_sequence_tokens, region);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CudaBackend::Account(const CudaOptions& options) {
  const absl::StatusOr<DeviceUse> use = CurrentDeviceUse();
  if (!use.ok()) return use.status();
  const int64_t ours = use->used_bytes - device_.foreign_bytes;
  if (ours > grant_.budget_bytes) {
    return absl::FailedPreconditionError(absl::StrCat(
        "--memory-budget allows ", grant_.budget_bytes, " bytes, but after the warm-up ", ours,
        " are in use: give more, or a smaller --max-batch-tokens",
        measured_ ? ", or start again: the code of algorithms that were only measured stays loaded "
                    "in this start"
                  : ""));
  }
  const int64_t workspaces = 2 * kWorkspaceBytes;
  info_.memory = {
      {"weights", weight_bytes_},         {"activations", grant_.activations.bytes - workspaces},
      {"context", device_.context_bytes}, {"code", code_bytes_},
      {"workspaces", workspaces},         {"graphs", graph_bytes_}};
  std::stable_sort(info_.memory.begin(), info_.memory.end(),
                   [](const MemoryUse& a, const MemoryUse& b) { return a.bytes > b.bytes; });
  info_.memory_budget_bytes = grant_.budget_bytes;
  info_.device = device_.Description();
  info_.device_uuid = device_.uuid;
  info_.longest_call = kLongestCall;
  // Inputs of FP8 weights are quantized as well, which moves vectors.
  info_.arithmetic = absl::StrCat(ArithmeticName(options.dtype), quantizes_inputs_ ? "+fp8" : "");
  info_.max_batch_tokens = static_cast<int>(grant_.activations.first.tokens);
  info_.max_sequence_tokens = static_cast<int>(grant_.max_sequence_tokens);
  info_.max_batch_sequences = static_cast<int>(
      std::min(grant_.activations.first.sequences, grant_.activations.second.sequences));
  info_.max_second_batch_tokens = static_cast<int>(grant_.activations.second.tokens);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CudaPass>> CudaBackend::Make(const PackedBatch& batch,
                                                            const PassRegion* free) {
  // The calling thread need not be the one that loaded.
  const absl::Status chosen = CudaStatus(cudaSetDevice(device_.ordinal), "choosing the device");
  if (!chosen.ok()) return chosen;
  // What a graph may run goes where graphs are; what does not fit there has the first region, which
  // is free as no other pass has a place.
  const bool graph = FindBucket(graphs_->buckets(), batch.num_tokens(), batch.num_sequences()) >= 0;
  PassRegion* const regions[] = {graph ? second_.get() : first_.get(),
                                 graph ? first_.get() : second_.get()};
  for (PassRegion* region : regions) {
    if ((region->in_use && region != free) || batch.num_tokens() > region->limits().tokens ||
        batch.num_sequences() > region->limits().sequences) {
      continue;
    }
    PassMemory* memory = region->TakeMemory();
    if (memory == nullptr) continue;
    return std::make_unique<CudaPass>(*executor_, region == second_.get() ? graphs_.get() : nullptr,
                                      region, memory, batch);
  }
  return absl::FailedPreconditionError(
      absl::StrCat("a pass of ", batch.num_tokens(), " tokens in ", batch.num_sequences(),
                   " sequences has no room beside those that are there"));
}

absl::StatusOr<std::unique_ptr<Pass>> CudaBackend::Begin(PackedBatch batch) {
  absl::StatusOr<std::unique_ptr<CudaPass>> pass = Make(batch, nullptr);
  if (!pass.ok()) return pass.status();
  if (!(*pass)->Claim()) return absl::InternalError("a free place was taken");
  return *std::move(pass);
}

absl::StatusOr<std::unique_ptr<Pass>> CudaBackend::Prepare(PackedBatch batch, const Pass& before) {
  const auto* running = dynamic_cast<const CudaPass*>(&before);
  if (running == nullptr) return absl::InvalidArgumentError("not a pass of this backend");
  absl::StatusOr<std::unique_ptr<CudaPass>> pass = Make(batch, running->region());
  if (!pass.ok()) return pass.status();
  return *std::move(pass);
}

absl::Status CudaBackend::CheckDevice() {
  // Takes back what harmed one call alone. What harmed the context comes again with every call.
  cudaGetLastError();
  return CudaStatus(cudaDeviceSynchronize(), "checking the device");
}

}  // namespace

absl::Status CheckCudaModel(const ModelConfig& config) { return ForwardShapeOf(config).status(); }

absl::StatusOr<std::unique_ptr<Backend>> CreateCudaBackend(const ModelConfig& config,
                                                           const Weights* weights,
                                                           const CudaBackendOptions& options) {
  if ((weights == nullptr) != options.cuda.dummy_weights) {
    return absl::InvalidArgumentError("weights are either a checkpoint's or random");
  }
  auto backend = std::make_unique<CudaBackend>();
  const absl::Status status = backend->Load(config, weights, options);
  if (!status.ok()) return status;
  return backend;
}

}  // namespace quiver
