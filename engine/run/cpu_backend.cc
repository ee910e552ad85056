#include "engine/run/cpu_backend.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/run/cpu_model.h"
#include "engine/run/cpu_pass.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"

namespace quiver {
namespace {

constexpr int kMaxThreads = 4096;
constexpr int kDefaultBatchTokens = 4096;
// Passes that may have a place at once.
constexpr int kMaxPasses = 2;
// The attention kernel's.
constexpr int kHeadDimMultiple = 8;
constexpr int kMaxHeadDim = 256;

constexpr int64_t kMaxPrefixTokens = 1 << 20;

// A step takes some two milliseconds: about this many multiply-adds a thread, but no fewer rows
// than keep a product from waiting for its weights.
constexpr int64_t kStepMacsPerThread = 64'000'000;
constexpr int64_t kMinChunkRows = 48;
constexpr int64_t kMaxChunkRows = 1536;

class CpuBackend : public Backend {
 public:
  static absl::StatusOr<std::unique_ptr<Backend>> Create(const ModelConfig& config,
                                                         std::shared_ptr<const Weights> weights,
                                                         const CpuBackendOptions& options);

  const BackendInfo& info() const override { return info_; }

  absl::StatusOr<std::unique_ptr<Pass>> Begin(PackedBatch batch) override {
    auto pass = std::make_unique<CpuPass>(context_, &buffers_, std::move(batch));
    if (pass->Claim()) return pass;
    return absl::FailedPreconditionError(
        absl::StrCat("no more than ", kMaxPasses, " passes may have a place at once"));
  }

  absl::StatusOr<std::unique_ptr<Pass>> Prepare(PackedBatch batch, const Pass&) override {
    return std::make_unique<CpuPass>(context_, &buffers_, std::move(batch));
  }

 private:
  CpuBackend(std::shared_ptr<const Weights> weights, int num_threads)
      : weights_(std::move(weights)), pool_(num_threads) {}

  // Tables are read from its map.
  const std::shared_ptr<const Weights> weights_;
  cpu::ThreadPool pool_;
  BackendInfo info_;
  std::unique_ptr<CpuModel> model_;
  CpuPassContext context_;
  std::vector<std::unique_ptr<CpuPassBuffers>> buffers_;
  std::unique_ptr<FloatBuffer> prefixes_;
};

absl::Status CheckConfig(const ModelConfig& config) {
  if (config.head_dim % kHeadDimMultiple != 0 || config.head_dim > kMaxHeadDim) {
    return absl::UnimplementedError(
        absl::StrCat("config.json: the head dimension must be a multiple of ", kHeadDimMultiple,
                     " and at most ", kMaxHeadDim, " on a CPU, is ", config.head_dim));
  }
  return absl::OkStatus();
}

absl::Status CheckOption(const char* name, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " must be from ", min, " to ", max, ", is ", value));
}

// Rows of which one step's work is some two milliseconds.
int64_t ChunkRows(const ModelConfig& config, int num_threads) {
  const int64_t matrices = config.family == Family::kQwen3 ? 3 : 2;
  const int64_t query_width = int64_t{config.num_heads} * config.head_dim;
  const int64_t macs_per_row =
      config.hidden_size * (query_width + matrices * config.intermediate_size);
  const int64_t rows = kStepMacsPerThread * num_threads / macs_per_row;
  return std::clamp(rows / kMinChunkRows * kMinChunkRows, kMinChunkRows, kMaxChunkRows);
}

absl::StatusOr<std::unique_ptr<Backend>> CpuBackend::Create(const ModelConfig& config,
                                                            std::shared_ptr<const Weights> weights,
                                                            const CpuBackendOptions& options) {
  absl::Status status = CheckConfig(config);
  if (status.ok()) status = CheckOption("num_threads", options.num_threads, 0, kMaxThreads);
  if (status.ok()) {
    status = CheckOption("max_input_tokens", options.max_input_tokens, 0, config.max_positions);
  }
  if (!status.ok()) return status;
  const int max_input =
      options.max_input_tokens > 0 ? options.max_input_tokens : config.default_max_tokens;
  const int max_batch = options.max_batch_tokens != 0 ? options.max_batch_tokens
                                                      : std::max(kDefaultBatchTokens, max_input);
  status = CheckOption("max_batch_tokens", max_batch, max_input, 1 << 24);
  if (!status.ok()) return status;

  const int num_threads = options.num_threads > 0 ? options.num_threads : cpu::AvailableCores();
  std::unique_ptr<CpuBackend> backend(new CpuBackend(std::move(weights), num_threads));
  CpuPassContext& context = backend->context_;
  context.config = config;
  context.pool = &backend->pool_;
  context.prune_last = config.pooling != Pooling::kMean;
  context.chunk_rows = ChunkRows(config, num_threads);
  context.attention_macs = kStepMacsPerThread * num_threads;

  const CpuModelOptions model_options = {
      .max_rows = context.chunk_rows, .max_positions = max_input, .prune_last = context.prune_last};
  const auto create = config.family == Family::kQwen3 ? CreateQwen3Cpu : CreateBertCpu;
  absl::StatusOr<std::unique_ptr<CpuModel>> model =
      create(config, *backend->weights_, model_options, &backend->pool_);
  if (!model.ok()) return model.status();
  backend->model_ = *std::move(model);
  context.model = backend->model_.get();
  for (int i = 0; i < kMaxPasses; ++i) {
    backend->buffers_.push_back(std::make_unique<CpuPassBuffers>(context, max_batch));
  }

  if (config.family == Family::kQwen3 && config.pooling == Pooling::kLastToken) {
    const int64_t floats_per_token = 2 * context.key_width() * config.num_layers;
    context.prefix_tokens = std::min<int64_t>(
        options.prefix_cache_bytes / (floats_per_token * static_cast<int64_t>(sizeof(float))),
        kMaxPrefixTokens);
    if (context.prefix_tokens > 0) {
      backend->prefixes_ = std::make_unique<FloatBuffer>(context.prefix_tokens * floats_per_token);
      context.prefixes = backend->prefixes_->data();
    }
  }

  BackendInfo& info = backend->info_;
  info.device = absl::StrCat("cpu (", cpu::IsaName(cpu::BestIsa()), ", ", num_threads,
                             num_threads == 1 ? " thread)" : " threads)");
  info.arithmetic = kCpuArithmetic;
  info.max_batch_tokens = max_batch;
  info.max_sequence_tokens = max_input;
  info.max_batch_sequences = max_batch;
  info.prefix_tokens = static_cast<int>(context.prefix_tokens);
  return backend;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const ModelConfig& config,
                                                          std::shared_ptr<const Weights> weights,
                                                          const CpuBackendOptions& options) {
  return CpuBackend::Create(config, std::move(weights), options);
}

}  // namespace quiver
