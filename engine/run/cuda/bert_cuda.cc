// BERT on CUDA. A layer is x = norm(x + output(attention(q, k, v))), then
// x = norm(x + down(activation(up(x)))); every projection has a bias. x is kept in F32, and rounded
// in `half` as the next product's input.
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/run/cpu_weights.h"
#include "engine/run/cuda/cuda_model.h"
#include "engine/run/cuda/cuda_status.h"
#include "kernels/cuda/activation.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/gather_rows.h"
#include "kernels/cuda/norm.h"

namespace quiver {
namespace {

struct LinearPlace {
  MatrixPlace matrix;
  int64_t bias = 0;  // as the next ones, an offset
};
struct NormPlace {
  int64_t weight = 0;
  int64_t bias = 0;
};
struct BertWeights {
  LinearPlace qkv;
  LinearPlace output;
  NormPlace output_norm;
  LinearPlace up;
  LinearPlace down;
  NormPlace down_norm;
};

class BertCuda : public CudaModel {
 public:
  BertCuda(const ModelConfig& config, const CudaModelOptions& options, WeightLayout* layout,
           Matmul* matmul);

  absl::Status Bind(std::byte* weights, cudaStream_t) override {
    weights_ = weights;
    return absl::OkStatus();
  }
  absl::Status Embed(const RowBlock& block) override;
  absl::Status Project(int layer, const RowBlock& block) override;
  absl::Status ProjectPooled(const RowBlock& block) override;
  absl::Status Finish(int layer, const RowBlock& block) override;
  const float* final_norm() const override { return nullptr; }
  std::vector<MatmulCase> Matmuls(const RowBlock& block, const RowBlock& pooled) const override;

 private:
  const float* Floats(int64_t offset) const {
    return reinterpret_cast<const float*>(weights_ + offset);
  }
  DeviceTable Table(const TablePlace& place) const { return {place.type, weights_ + place.offset}; }
  MatmulOperands QueryKeyValue(const BertWeights& weights, const RowBlock& block) const;
  MatmulOperands Output(const BertWeights& weights, const RowBlock& block) const;
  MatmulOperands Up(const BertWeights& weights, const RowBlock& block) const;
  MatmulOperands Down(const BertWeights& weights, const RowBlock& block) const;
  // residual = half = norm(residual + delta + bias), where `half` holds delta unless bias is null.
  cudaError_t AddNorm(const NormPlace& norm, const float* delta_bias, const float* residual,
                      const int32_t* residual_rows, const RowBlock& block) const;

  const ForwardShape shape_;
  const HalfType type_;
  const float eps_;
  const cpu::Activation activation_;
  Matmul* const matmul_;
  std::byte* weights_ = nullptr;
  TablePlace words_;
  TablePlace types_;
  TablePlace positions_;
  NormPlace embedding_norm_;
  std::vector<BertWeights> layers_;
};

BertCuda::BertCuda(const ModelConfig& config, const CudaModelOptions& options, WeightLayout* layout,
                   Matmul* matmul)
    : shape_(options.shape),
      type_(options.type == ComputeType::kBfloat16 ? HalfType::kBf16 : HalfType::kF16),
      eps_(config.norm_eps),
      activation_(CpuActivation(config.activation)),
      matmul_(matmul) {
  const int64_t hidden = shape_.hidden;
  // Linears that share their input, by their names without ".weight" and ".bias".
  const auto linear = [&](const std::vector<std::string>& names, int64_t rows, int64_t k) {
    std::vector<WeightLayout::Part> matrices;
    std::vector<WeightLayout::Part> biases;
    for (const std::string& name : names) {
      matrices.push_back({name + ".weight", rows});
      biases.push_back({name + ".bias", rows});
    }
    LinearPlace place;
    place.matrix = layout->Matrix(matrices, k);
    place.bias = layout->Vector(biases, /*is_norm=*/false);
    return place;
  };
  const auto norm = [&](const std::string& name) {
    NormPlace place;
    place.weight = layout->Vector(name + ".weight", hidden, /*is_norm=*/true);
    place.bias = layout->Vector(name + ".bias", hidden, /*is_norm=*/false);
    return place;
  };
  words_ = layout->Table("embeddings.word_embeddings.weight", config.vocab_size, hidden);
  types_ = layout->Table("embeddings.token_type_embeddings.weight", config.type_vocab_size, hidden);
  positions_ = layout->Table("embeddings.position_embeddings.weight", config.max_positions, hidden);
  embedding_norm_ = norm("embeddings.LayerNorm");
  for (int i = 0; i < shape_.num_layers; ++i) {
    const std::string base = absl::StrCat("encoder.layer.", i, ".");
    const std::string self = base + "attention.self.";
    BertWeights weights;
    weights.qkv = linear({self + "query", self + "key", self + "value"}, hidden, hidden);
    weights.output = linear({base + "attention.output.dense"}, hidden, hidden);
    weights.output_norm = norm(base + "attention.output.LayerNorm");
    weights.up = linear({base + "intermediate.dense"}, shape_.inner, hidden);
    weights.down = linear({base + "output.dense"}, hidden, shape_.inner);
    weights.down_norm = norm(base + "output.LayerNorm");
    layers_.push_back(weights);
  }
}

MatmulOperands BertCuda::QueryKeyValue(const BertWeights& weights, const RowBlock& block) const {
  return {.x = block.half,
          .x_stride = shape_.hidden,
          .weight = weights_ + weights.qkv.matrix.offset,
          .form = weights.qkv.matrix.form,
          .weight_scales = Floats(weights.qkv.matrix.scales_offset),
          .out = block.projected,
          .out_stride = block.projected_stride,
          .rows = block.rows,
          .n = shape_.projection_width(),
          .k = shape_.hidden};
}

MatmulOperands BertCuda::Output(const BertWeights& weights, const RowBlock& block) const {
  return {.x = block.projected,
          .x_stride = block.projected_stride,
          .weight = weights_ + weights.output.matrix.offset,
          .form = weights.output.matrix.form,
          .weight_scales = Floats(weights.output.matrix.scales_offset),
          .out = block.half,
          .out_stride = shape_.hidden,
          .rows = block.rows,
          .n = shape_.hidden,
          .k = shape_.query_width()};
}

MatmulOperands BertCuda::Up(const BertWeights& weights, const RowBlock& block) const {
  return {.x = block.half,
          .x_stride = shape_.hidden,
          .weight = weights_ + weights.up.matrix.offset,
          .form = weights.up.matrix.form,
          .weight_scales = Floats(weights.up.matrix.scales_offset),
          .out = block.inner,
          .out_stride = shape_.inner_width,
          .rows = block.rows,
          .n = shape_.inner,
          .k = shape_.hidden};
}

MatmulOperands BertCuda::Down(const BertWeights& weights, const RowBlock& block) const {
  return {.x = block.inner,
          .x_stride = shape_.inner_width,
          .weight = weights_ + weights.down.matrix.offset,
          .form = weights.down.matrix.form,
          .weight_scales = Floats(weights.down.matrix.scales_offset),
          .out = block.half,
          .out_stride = shape_.hidden,
          .rows = block.rows,
          .n = shape_.hidden,
          .k = shape_.inner};
}

cudaError_t BertCuda::AddNorm(const NormPlace& norm, const float* delta_bias, const float* residual,
                              const int32_t* residual_rows, const RowBlock& block) const {
  NormTensors tensors;
  tensors.residual = residual;
  tensors.residual_stride = shape_.hidden;
  tensors.residual_rows = residual_rows;
  tensors.delta = delta_bias != nullptr ? block.half : nullptr;
  tensors.delta_stride = shape_.hidden;
  tensors.delta_bias = delta_bias;
  tensors.residual_out = block.residual;
  tensors.residual_out_stride = shape_.hidden;
  tensors.out = block.half;
  tensors.out_stride = shape_.hidden;
  tensors.rows = block.rows;
  tensors.dim = shape_.hidden;
  tensors.type = type_;
  return AddLayerNorm(tensors, Floats(norm.weight), Floats(norm.bias), eps_, block.scratch.stream);
}

absl::Status BertCuda::Embed(const RowBlock& block) {
  CudaCalls calls;
  calls(
      quiver::Embed(Table(words_), Table(types_), Table(positions_), block.ids, block.positions,
                    block.rows, shape_.hidden, block.residual, shape_.hidden, block.scratch.stream),
      "embedding");
  calls(AddNorm(embedding_norm_, nullptr, block.residual, nullptr, block), "norm");
  return calls.status();
}

absl::Status BertCuda::Project(int layer, const RowBlock& block) {
  const BertWeights& weights = layers_[layer];
  CudaCalls calls;
  calls(matmul_->Run(QueryKeyValue(weights, block), block.scratch));
  calls(BiasActivate(cpu::Activation::kNone, Floats(weights.qkv.bias), block.rows,
                     shape_.projection_width(), block.projected, block.projected_stride, type_,
                     block.scratch.stream),
        "bias");
  return calls.status();
}

absl::Status BertCuda::ProjectPooled(const RowBlock& block) {
  // Their queries were computed among all the others: a product of its own would save little.
  return CudaStatus(GatherRows(block.all_projected, 2 * shape_.projection_width(),
                               block.pooled_rows, block.rows, 2 * shape_.query_width(),
                               block.projected, 2 * block.projected_stride, block.scratch.stream),
                    "gathering queries");
}

absl::Status BertCuda::Finish(int layer, const RowBlock& block) {
  const BertWeights& weights = layers_[layer];
  const bool pooled = block.pooled_rows != nullptr;
  CudaCalls calls;
  calls(matmul_->Run(Output(weights, block), block.scratch));
  calls(AddNorm(weights.output_norm, Floats(weights.output.bias),
                pooled ? block.all_residual : block.residual, block.pooled_rows, block),
        "norm");
  calls(matmul_->Run(Up(weights, block), block.scratch));
  calls(BiasActivate(activation_, Floats(weights.up.bias), block.rows, shape_.inner, block.inner,
                     shape_.inner_width, type_, block.scratch.stream),
        "activation");
  calls(matmul_->Run(Down(weights, block), block.scratch));
  calls(AddNorm(weights.down_norm, Floats(weights.down.bias), block.residual, nullptr, block),
        "norm");
  return calls.status();
}

std::vector<MatmulCase> BertCuda::Matmuls(const RowBlock& block, const RowBlock& pooled) const {
  std::vector<MatmulCase> cases;
  const auto add = [&](const RowBlock& rows, auto operands_of) {
    std::vector<MatmulOperands> layers;
    for (const BertWeights& weights : layers_) {
      layers.push_back((this->*operands_of)(weights, rows));
    }
    for (MatmulCase& product : CasesOf(layers)) cases.push_back(std::move(product));
  };
  add(block, &BertCuda::QueryKeyValue);
  add(block, &BertCuda::Output);
  add(block, &BertCuda::Up);
  add(block, &BertCuda::Down);
  if (shape_.prune_last) add(pooled, &BertCuda::Output);
  return cases;
}

}  // namespace

std::unique_ptr<CudaModel> CreateBertCuda(const ModelConfig& config,
                                          const CudaModelOptions& options, WeightLayout* layout,
                                          Matmul* matmul) {
  return std::make_unique<BertCuda>(config, options, layout, matmul);
}

}  // namespace quiver
