// Qwen3 on CUDA. A layer is x += o(attention(rope(norm(q)), rope(norm(k)), v)), then
// x += down(silu(gate) * up), each on an RMSNorm of x. The residual takes a product's output in the
// kernel that makes the next product's input; norms and rotations of heads, and gates, go with the
// products before them. What makes a product's input makes it in FP8 where that is asked for.
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/run/cuda/cuda_model.h"
#include "engine/run/cuda/cuda_status.h"
#include "kernels/cuda/decoder_pass.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/rope.h"

namespace quiver {
namespace {

// Offsets until Bind, addresses after.
struct Qwen3Weights {
  int64_t input_norm = 0;
  MatrixPlace qkv;
  int64_t query_norm = 0;
  int64_t key_norm = 0;
  MatrixPlace output;
  int64_t mlp_norm = 0;
  MatrixPlace gate_up;
  MatrixPlace down;
};

DecoderWeightForm DecoderFormOf(WeightKind kind) {
  switch (kind) {
    case WeightKind::kHalf:
      break;
    case WeightKind::kInt4:
      return DecoderWeightForm::kInt4;
    case WeightKind::kFp8:
      return DecoderWeightForm::kFp8;
  }
  return DecoderWeightForm::kHalf;
}

class Qwen3Cuda : public CudaModel {
 public:
  Qwen3Cuda(const ModelConfig& config, const CudaModelOptions& options, WeightLayout* layout,
            Matmul* matmul);

  absl::Status Bind(std::byte* weights, cudaStream_t stream) override;
  absl::Status Embed(const RowBlock& block) override;
  absl::Status Project(int layer, const RowBlock& block) override;
  absl::Status ProjectPooled(const RowBlock& block) override;
  absl::Status Finish(int layer, const RowBlock& block) override;
  bool quantizes_inputs() const override { return true; }
  int64_t DecoderBytes() const override;
  bool DecodesHere() const override;
  absl::Status Decode(const RowBlock& block, const RowBlock& pooled, void* workspace) override;
  const float* final_norm() const override { return Floats(final_norm_); }
  std::vector<MatmulCase> Matmuls(const RowBlock& block, const RowBlock& pooled) const override;

 private:
  bool IsPruned(int layer) const { return shape_.prune_last && layer == shape_.num_layers - 1; }
  const float* Floats(int64_t offset) const {
    return reinterpret_cast<const float*>(weights_ + offset);
  }
  // Row `row` of a matrix of `k` columns.
  const void* Matrix(const MatrixPlace& place, int64_t row = 0, int64_t k = 0) const {
    return weights_ + place.offset + place.form.Bytes(row, k);
  }
  DecoderShape DecoderShapeOfModel() const;
  // Rows of the table of embeddings, to the residual.
  cudaError_t LookUp(const RowBlock& block) const;
  MatmulOperands QueryKeyValue(const Qwen3Weights& weights, const RowBlock& block) const;
  MatmulOperands KeyValue(const Qwen3Weights& weights, const RowBlock& block) const;
  // What Project() multiplies, or does not where that layer is pruned.
  MatmulOperands Projection(int layer, const RowBlock& block) const;
  MatmulOperands PooledQuery(const Qwen3Weights& weights, const RowBlock& block) const;
  MatmulOperands Output(const Qwen3Weights& weights, const RowBlock& block) const;
  MatmulOperands GateUp(const Qwen3Weights& weights, const RowBlock& block) const;
  MatmulOperands Down(const Qwen3Weights& weights, const RowBlock& block) const;
  // Makes a product's input.
  NormTensors NormFor(const MatmulOperands& next, const RowBlock& block) const;
  // Of a product's rows of queries, then keys.
  QkNormRopeOperands Rope(const Qwen3Weights& weights, int num_heads, int num_kv_heads,
                          const RowBlock& block) const;

  const ForwardShape shape_;
  const HalfType type_;
  const float eps_;
  const double rope_theta_;
  const int64_t max_positions_;
  Matmul* const matmul_;
  std::byte* weights_ = nullptr;
  TablePlace embeddings_;
  int64_t rope_ = 0;
  int64_t final_norm_ = 0;
  std::vector<Qwen3Weights> layers_;
  int64_t layer_bytes_ = 0;  // from one layer's weights to the next one's
  // Of all matrices; nothing where they have several.
  std::optional<WeightForm> form_;
};

Qwen3Cuda::Qwen3Cuda(const ModelConfig& config, const CudaModelOptions& options,
                     WeightLayout* layout, Matmul* matmul)
    : shape_(options.shape),
      type_(options.type == ComputeType::kBfloat16 ? HalfType::kBf16 : HalfType::kF16),
      eps_(config.norm_eps),
      rope_theta_(config.rope_theta),
      max_positions_(options.max_positions),
      matmul_(matmul) {
  const int64_t hidden = shape_.hidden;
  const int64_t inner = shape_.inner;
  embeddings_ = layout->Table("embed_tokens.weight", config.vocab_size, hidden);
  final_norm_ = layout->Vector("norm.weight", hidden, /*is_norm=*/true);
  rope_ = layout->Reserve(RopeTableFloats(max_positions_, shape_.head_dim) * 4);
  const int64_t first_layer = layout->bytes();
  for (int i = 0; i < shape_.num_layers; ++i) {
    const std::string base = absl::StrCat("layers.", i, ".");
    const std::string attention = base + "self_attn.";
    Qwen3Weights weights;
    weights.input_norm = layout->Vector(base + "input_layernorm.weight", hidden, true);
    weights.qkv = layout->Matrix({{attention + "q_proj.weight", shape_.query_width()},
                                  {attention + "k_proj.weight", shape_.key_width()},
                                  {attention + "v_proj.weight", shape_.key_width()}},
                                 hidden);
    weights.query_norm = layout->Vector(attention + "q_norm.weight", shape_.head_dim, true);
    weights.key_norm = layout->Vector(attention + "k_norm.weight", shape_.head_dim, true);
    weights.output = layout->Matrix({{attention + "o_proj.weight", hidden}}, shape_.query_width());
    weights.mlp_norm = layout->Vector(base + "post_attention_layernorm.weight", hidden, true);
    weights.gate_up = layout->Matrix(
        {{base + "mlp.gate_proj.weight", inner}, {base + "mlp.up_proj.weight", inner}}, hidden);
    weights.down = layout->Matrix({{base + "mlp.down_proj.weight", hidden}}, inner);
    // Where what is before them, or their room, does not let these have their inputs in FP8.
    if (!weights.gate_up.form.fp8_inputs) weights.down.form.fp8_inputs = false;
    if (shape_.query_width() > 2 * shape_.inner_width) weights.output.form.fp8_inputs = false;
    layers_.push_back(weights);
    // Every layer asks for the same, so that it lies as far behind the layer before, where all
    // matrices have the same form.
    if (i == 0) layer_bytes_ = layout->bytes() - first_layer;
  }
  form_ = layers_[0].qkv.form;
  for (const Qwen3Weights& weights : layers_) {
    for (const MatrixPlace* place :
         {&weights.qkv, &weights.output, &weights.gate_up, &weights.down}) {
      if (form_ != place->form) form_.reset();
    }
  }
}

absl::Status Qwen3Cuda::Bind(std::byte* weights, cudaStream_t stream) {
  weights_ = weights;
  return CudaStatus(MakeRopeTable(reinterpret_cast<float*>(weights + rope_), max_positions_,
                                  shape_.head_dim, rope_theta_, stream),
                    "making the table of rotations");
}

MatmulOperands Qwen3Cuda::QueryKeyValue(const Qwen3Weights& weights, const RowBlock& block) const {
  return {.x = block.half,
          .x_stride = shape_.hidden,
          .x_fp8 = {block.half, 2 * shape_.hidden, block.row_scales},
          .weight = Matrix(weights.qkv),
          .form = weights.qkv.form,
          .weight_scales = Floats(weights.qkv.scales_offset),
          .out = block.projected,
          .out_stride = block.projected_stride,
          .rows = block.rows,
          .n = shape_.projection_width(),
          .k = shape_.hidden,
          .epilogue = MatmulEpilogue::kQkNormRope,
          .rope = Rope(weights, shape_.num_heads, shape_.num_kv_heads, block),
          .head_dim = shape_.head_dim};
}

MatmulOperands Qwen3Cuda::KeyValue(const Qwen3Weights& weights, const RowBlock& block) const {
  MatmulOperands operands = QueryKeyValue(weights, block);
  operands.weight = Matrix(weights.qkv, shape_.query_width(), shape_.hidden);
  operands.weight_scales += shape_.query_width();
  operands.out = static_cast<std::byte*>(block.projected) + 2 * shape_.query_width();
  operands.n = 2 * shape_.key_width();
  operands.rope = Rope(weights, 0, shape_.num_kv_heads, block);
  return operands;
}

MatmulOperands Qwen3Cuda::Projection(int layer, const RowBlock& block) const {
  return IsPruned(layer) ? KeyValue(layers_[layer], block) : QueryKeyValue(layers_[layer], block);
}

MatmulOperands Qwen3Cuda::PooledQuery(const Qwen3Weights& weights, const RowBlock& block) const {
  MatmulOperands operands = QueryKeyValue(weights, block);
  operands.n = shape_.query_width();
  operands.rope = Rope(weights, shape_.num_heads, 0, block);
  return operands;
}

MatmulOperands Qwen3Cuda::Output(const Qwen3Weights& weights, const RowBlock& block) const {
  return {.x = block.projected,
          .x_stride = block.projected_stride,
          .x_fp8 = {block.inner, shape_.query_width(), block.row_scales},
          .weight = Matrix(weights.output),
          .form = weights.output.form,
          .weight_scales = Floats(weights.output.scales_offset),
          .out = block.half,
          .out_stride = shape_.hidden,
          .rows = block.rows,
          .n = shape_.hidden,
          .k = shape_.query_width()};
}

MatmulOperands Qwen3Cuda::GateUp(const Qwen3Weights& weights, const RowBlock& block) const {
  return {.x = block.half,
          .x_stride = shape_.hidden,
          .x_fp8 = {block.half, 2 * shape_.hidden, block.row_scales},
          .weight = Matrix(weights.gate_up),
          .form = weights.gate_up.form,
          .weight_scales = Floats(weights.gate_up.scales_offset),
          .out = block.inner,
          .out_stride = shape_.inner_width,
          .rows = block.rows,
          .n = shape_.inner_width,
          .k = shape_.hidden,
          .epilogue = MatmulEpilogue::kSwiGlu};
}

MatmulOperands Qwen3Cuda::Down(const Qwen3Weights& weights, const RowBlock& block) const {
  return {.x = block.inner,
          .x_stride = shape_.inner_width,
          .x_fp8 = {static_cast<std::byte*>(block.inner) + 2 * shape_.inner, 2 * shape_.inner_width,
                    block.row_scales},
          .weight = Matrix(weights.down),
          .form = weights.down.form,
          .weight_scales = Floats(weights.down.scales_offset),
          .out = block.half,
          .out_stride = shape_.hidden,
          .rows = block.rows,
          .n = shape_.hidden,
          .k = shape_.inner};
}

NormTensors Qwen3Cuda::NormFor(const MatmulOperands& next, const RowBlock& block) const {
  NormTensors tensors;
  tensors.residual = block.residual;
  tensors.residual_stride = shape_.hidden;
  tensors.residual_out_stride = shape_.hidden;
  tensors.delta_stride = shape_.hidden;
  if (matmul_->WantsFp8(next, block.scratch)) {
    tensors.fp8 = next.x_fp8;
  } else {
    tensors.out = block.half;
  }
  tensors.out_stride = shape_.hidden;
  tensors.rows = block.rows;
  tensors.dim = shape_.hidden;
  tensors.type = type_;
  return tensors;
}

QkNormRopeOperands Qwen3Cuda::Rope(const Qwen3Weights& weights, int num_heads, int num_kv_heads,
                                   const RowBlock& block) const {
  return {.num_heads = num_heads,
          .num_kv_heads = num_kv_heads,
          .q_weight = Floats(weights.query_norm),
          .k_weight = Floats(weights.key_norm),
          .eps = eps_,
          .positions = block.positions,
          .table = Floats(rope_)};
}

cudaError_t Qwen3Cuda::LookUp(const RowBlock& block) const {
  const DeviceTable table = {embeddings_.type, weights_ + embeddings_.offset};
  return quiver::Embed(table, {}, {}, block.ids, nullptr, block.rows, shape_.hidden, block.residual,
                       shape_.hidden, block.scratch.stream);
}

absl::Status Qwen3Cuda::Embed(const RowBlock& block) {
  CudaCalls calls;
  calls(LookUp(block), "embedding");
  calls(AddRmsNorm(NormFor(Projection(0, block), block), Floats(layers_[0].input_norm), eps_,
                   block.scratch.stream),
        "norm");
  return calls.status();
}

absl::Status Qwen3Cuda::Project(int layer, const RowBlock& block) {
  return matmul_->Run(Projection(layer, block), block.scratch);
}

absl::Status Qwen3Cuda::ProjectPooled(const RowBlock& block) {
  const Qwen3Weights& weights = layers_.back();
  const MatmulOperands query = PooledQuery(weights, block);
  CudaCalls calls;
  NormTensors tensors = NormFor(query, block);
  tensors.residual = block.all_residual;
  tensors.residual_rows = block.pooled_rows;
  // Kept for Finish, as its rows are then next to each other.
  tensors.residual_out = block.residual;
  calls(AddRmsNorm(tensors, Floats(weights.input_norm), eps_, block.scratch.stream), "norm");
  calls(matmul_->Run(query, block.scratch));
  return calls.status();
}

absl::Status Qwen3Cuda::Finish(int layer, const RowBlock& block) {
  const Qwen3Weights& weights = layers_[layer];
  const cudaStream_t stream = block.scratch.stream;
  const MatmulOperands output = Output(weights, block);
  MatmulOperands gate_up = GateUp(weights, block);
  const MatmulOperands down = Down(weights, block);
  if (matmul_->WantsFp8(down, block.scratch)) gate_up.out_fp8 = down.x_fp8;
  const auto add_norm = [&](NormTensors tensors, int64_t weight) {
    tensors.delta = block.half;
    tensors.residual_out = block.residual;
    return AddRmsNorm(tensors, Floats(weight), eps_, stream);
  };
  CudaCalls calls;
  if (matmul_->WantsFp8(output, block.scratch)) {
    calls(
        QuantizeRows(type_, output.x, output.x_stride, output.rows, output.k, output.x_fp8, stream),
        "quantizing attention's output");
  }
  calls(matmul_->Run(output, block.scratch));
  calls(add_norm(NormFor(gate_up, block), weights.mlp_norm), "norm");
  calls(matmul_->Run(gate_up, block.scratch));
  calls(matmul_->Run(down, block.scratch));
  if (layer < shape_.num_layers - 1) {
    calls(add_norm(NormFor(Projection(layer + 1, block), block), layers_[layer + 1].input_norm),
          "norm");
  } else {
    // The last sum is normalized where it is pooled, in F32.
    NormTensors tensors = NormFor({}, block);
    tensors.out = nullptr;
    calls(add_norm(tensors, final_norm_), "norm");
  }
  return calls.status();
}

DecoderShape Qwen3Cuda::DecoderShapeOfModel() const {
  return {.hidden = shape_.hidden,
          .inner = shape_.inner,
          .num_layers = shape_.num_layers,
          .num_heads = shape_.num_heads,
          .num_kv_heads = shape_.num_kv_heads,
          .norm_eps = eps_,
          .type = type_,
          .form = DecoderFormOf(form_.value_or(WeightForm()).kind),
          .int4_group = form_.value_or(WeightForm()).group};
}

int64_t Qwen3Cuda::DecoderBytes() const {
  if (!form_.has_value() || shape_.head_dim != kDecoderHeadDim || !shape_.causal ||
      !shape_.prune_last) {
    return 0;
  }
  return static_cast<int64_t>(DecoderWorkspaceBytes(DecoderShapeOfModel()));
}

bool Qwen3Cuda::DecodesHere() const {
  bool is_supported = false;
  return DecoderBytes() > 0 &&
         DecoderPassIsSupported(DecoderShapeOfModel(), &is_supported) == cudaSuccess &&
         is_supported;
}

absl::Status Qwen3Cuda::Decode(const RowBlock& block, const RowBlock& pooled, void* workspace) {
  const Qwen3Weights& first = layers_[0];
  DecoderWeights weights;
  weights.input_norm = Floats(first.input_norm);
  weights.qkv = Matrix(first.qkv);
  weights.query_norm = Floats(first.query_norm);
  weights.key_norm = Floats(first.key_norm);
  weights.output = Matrix(first.output);
  weights.mlp_norm = Floats(first.mlp_norm);
  weights.gate_up = Matrix(first.gate_up);
  weights.down = Matrix(first.down);
  if (form_->kind == WeightKind::kFp8) {
    weights.qkv_scales = Floats(first.qkv.scales_offset);
    weights.output_scales = Floats(first.output.scales_offset);
    weights.gate_up_scales = Floats(first.gate_up.scales_offset);
    weights.down_scales = Floats(first.down.scales_offset);
  }
  weights.layer_bytes = layer_bytes_;
  DecoderTensors tensors;
  tensors.residual = block.residual;
  tensors.rows = static_cast<int>(block.rows);
  tensors.positions = block.positions;
  tensors.rope_table = Floats(rope_);
  tensors.pooled_rows = pooled.pooled_rows;
  tensors.num_pooled = static_cast<int>(pooled.rows);
  tensors.out = pooled.residual;
  tensors.workspace = workspace;
  CudaCalls calls;
  calls(LookUp(block), "embedding");
  calls(DecoderPass(DecoderShapeOfModel(), weights, tensors, block.scratch.stream), "all layers");
  return calls.status();
}

std::vector<MatmulCase> Qwen3Cuda::Matmuls(const RowBlock& block, const RowBlock& pooled) const {
  std::vector<MatmulCase> cases;
  const auto add = [&](const RowBlock& rows, auto operands_of) {
    std::vector<MatmulOperands> layers;
    for (const Qwen3Weights& weights : layers_) {
      layers.push_back((this->*operands_of)(weights, rows));
    }
    for (MatmulCase& product : CasesOf(layers)) cases.push_back(std::move(product));
  };
  add(block, &Qwen3Cuda::QueryKeyValue);
  add(block, &Qwen3Cuda::Output);
  add(block, &Qwen3Cuda::GateUp);
  add(block, &Qwen3Cuda::Down);
  if (shape_.prune_last) {
    add(block, &Qwen3Cuda::KeyValue);
    add(pooled, &Qwen3Cuda::PooledQuery);
    add(pooled, &Qwen3Cuda::Output);
  }
  return cases;
}

}  // namespace

std::unique_ptr<CudaModel> CreateQwen3Cuda(const ModelConfig& config,
                                           const CudaModelOptions& options, WeightLayout* layout,
                                           Matmul* matmul) {
  return std::make_unique<Qwen3Cuda>(config, options, layout, matmul);
}

}  // namespace quiver
