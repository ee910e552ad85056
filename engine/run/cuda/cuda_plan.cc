#include "engine/run/cuda/cuda_plan.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/run/cpu_weights.h"
#include "kernels/cuda/few_rows_matmul.h"

namespace quiver {
namespace {

// An H200 as the driver describes it, but for its memory, and what a context takes there.
constexpr int kAssumedMajor = 9;
constexpr int kAssumedMultiprocessors = 132;
constexpr int kAssumedClockKhz = 1'980'000;
constexpr int64_t kAssumedContextBytes = int64_t{276} << 20;

CudaDevice AssumedDevice(int64_t total_bytes) {
  CudaDevice device;
  device.compute_major = kAssumedMajor;
  device.path = AttentionPath::kHopper;
  device.rates = DeviceRates::Of(kAssumedMajor, 0, kAssumedMultiprocessors, kAssumedClockKhz,
                                 AttentionPath::kHopper);
  device.total_bytes = total_bytes;
  device.context_bytes = kAssumedContextBytes;
  device.few_rows_bytes = static_cast<int64_t>(FewRowsWorkspaceBytes(kAssumedMultiprocessors));
  return device;
}

}  // namespace

absl::StatusOr<CudaPlan> PlanModel(const ModelConfig& config, const Weights* weights,
                                   const CudaBackendOptions& options, bool takes_fp8,
                                   Matmul* matmul) {
  absl::StatusOr<ForwardShape> shape = ForwardShapeOf(config);
  if (!shape.ok()) return shape.status();
  const bool qwen3 = config.family == Family::kQwen3;
  std::string prefix;
  if (weights != nullptr) {
    absl::StatusOr<std::string> found =
        FindPrefix(*weights, qwen3 ? "model." : "bert.",
                   qwen3 ? "embed_tokens.weight" : "embeddings.word_embeddings.weight");
    if (!found.ok()) return found.status();
    prefix = *std::move(found);
  }
  WeightForm random_form;
  if (options.cuda.dummy_int4_group > 0) {
    random_form = {.kind = WeightKind::kInt4, .group = options.cuda.dummy_int4_group};
  } else if (options.cuda.dummy_fp8 && takes_fp8) {
    random_form = {.kind = WeightKind::kFp8};
  }
  CudaPlan plan = {
      .shape = *shape,
      .layout = WeightLayout(weights, prefix, options.cuda.dtype, &config.quantization_config,
                             takes_fp8, random_form, options.cuda.activation)};
  const CudaModelOptions model_options = {.shape = plan.shape,
                                          .type = options.cuda.dtype,
                                          .max_positions = options.max_input_tokens > 0
                                                               ? options.max_input_tokens
                                                               : config.default_max_tokens};
  plan.model =
      (qwen3 ? CreateQwen3Cuda : CreateBertCuda)(config, model_options, &plan.layout, matmul);
  if (!plan.layout.status().ok()) return plan.layout.status();
  const auto& pieces = plan.layout.pieces();
  plan.quantizes_inputs = std::any_of(
      pieces.begin(), pieces.end(), [](const WeightPiece& piece) { return piece.form.fp8_inputs; });
  if (options.cuda.activation == ActivationType::kFp8 && !plan.quantizes_inputs) {
    return absl::FailedPreconditionError(absl::StrCat(
        "--activation fp8 needs ",
        takes_fp8 ? "weights of int4 or FP8 (--quantization), the model has none that are "
                    "multiplied so"
                  : "a device of compute capability 9.0, and not --force-portable"));
  }
  return plan;
}

absl::StatusOr<MemoryGrant> PlanMemory(const ModelConfig& config, const CudaPlan& plan,
                                       const CudaBackendOptions& options, const CudaDevice& device,
                                       bool decodes) {
  const WeightLayout& layout = plan.layout;
  MemoryRequest request;
  request.budget = options.cuda.memory_budget;
  request.total_bytes = device.total_bytes;
  request.foreign_bytes = device.foreign_bytes;
  request.context_bytes = device.context_bytes;
  request.weight_bytes = layout.bytes();
  request.max_batch_tokens = options.max_batch_tokens;
  request.max_input_tokens = options.max_input_tokens;
  request.few_rows_bytes = device.few_rows_bytes;
  request.expanded_bytes = layout.expanded_bytes();
  request.layer_expanded_bytes = layout.all_expanded_bytes() / plan.shape.num_layers;
  if (layout.fp8_columns() > 0 && !plan.model->quantizes_inputs()) {
    request.fp8_row_bytes = Fp8RowBytes(layout.fp8_columns());
  }
  if (decodes) request.decoder_bytes = plan.model->DecoderBytes();
  request.default_input_tokens = config.default_max_tokens;
  const double flop_per_token =
      2.0 * static_cast<double>(plan.shape.finish_weights() + plan.shape.projection_weights());
  request.max_chunk_tokens =
      static_cast<int64_t>(kMaxOperationUs * device.rates.linear_flop_per_us / flop_per_token);
  return GrantMemory(plan.shape, request);
}

absl::StatusOr<MemoryForecast> ForecastCudaMemory(const ModelConfig& config, const Weights* weights,
                                                  const CudaBackendOptions& options,
                                                  int64_t total_bytes) {
  const bool hopper = !options.cuda.force_portable;
  const absl::StatusOr<CudaPlan> plan = PlanModel(config, weights, options, hopper, nullptr);
  if (!plan.ok()) return plan.status();
  const CudaDevice device = AssumedDevice(total_bytes);
  const absl::StatusOr<MemoryGrant> grant = PlanMemory(config, *plan, options, device, hopper);
  if (!grant.ok()) return grant.status();
  MemoryForecast forecast;
  forecast.memory = {{"weights", plan->layout.bytes()},
                     {"activations and workspaces", grant->activations.bytes},
                     {"context", device.context_bytes},
                     {"code and graphs", kCodeAndGraphBytes}};
  forecast.max_batch_tokens = static_cast<int>(grant->activations.first.tokens);
  forecast.max_second_batch_tokens = static_cast<int>(grant->activations.second.tokens);
  forecast.max_sequence_tokens = static_cast<int>(grant->max_sequence_tokens);
  return forecast;
}

}  // namespace quiver
