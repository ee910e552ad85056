// Qwen3 on the CPU. A layer is x += o(attention(rope(norm(q)), rope(norm(k)), v)), then
// x += down(silu(gate) * up), each on an RMSNorm of x.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/run/cpu_model.h"
#include "engine/run/cpu_weights.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/rope.h"

namespace quiver {
namespace {

struct Qwen3Layer {
  std::vector<float> input_norm;
  // One under another, or the query apart in a pruned last layer.
  cpu::PackedMatrix qkv;
  cpu::PackedMatrix query;
  cpu::PackedMatrix key_value;
  std::vector<float> query_norm;
  std::vector<float> key_norm;
  cpu::PackedMatrix output;
  std::vector<float> mlp_norm;
  cpu::PackedMatrix gate_up;
  cpu::PackedMatrix down;
};

class Qwen3Cpu : public CpuModel {
 public:
  Qwen3Cpu(const ModelConfig& config, const CpuModelOptions& options, cpu::ThreadPool* pool)
      : config_(config),
        hidden_size_(config.hidden_size),
        query_width_(int64_t{config.num_heads} * config.head_dim),
        key_width_(int64_t{config.num_kv_heads} * config.head_dim),
        pool_(pool),
        rope_(options.max_positions, config.head_dim, config.rope_theta, pool),
        normed_(static_cast<size_t>(options.max_rows * hidden_size_)),
        inner_(static_cast<size_t>(options.max_rows * config.intermediate_size)) {}

  absl::Status Load(const Weights& weights, bool prune_last);

  void Embed(const int32_t* ids, const int32_t*, int64_t rows, float* hidden) const override {
    cpu::Embed(embeddings_, {}, {}, ids, nullptr, rows, hidden_size_, hidden, hidden_size_, pool_);
  }

  void Project(int layer, Projection which, const float* hidden, const int32_t* positions,
               int64_t rows, float* out, int64_t stride) const override;

  void FinishLayer(int layer, const float* attended, int64_t stride, int64_t rows,
                   float* hidden) const override;

  void FinishRows(int64_t rows, float* hidden) const override {
    RmsNorm(hidden, rows, final_norm_, hidden);
  }

 private:
  void RmsNorm(const float* x, int64_t rows, const std::vector<float>& weight, float* y) const {
    cpu::RmsNorm(x, hidden_size_, rows, hidden_size_, weight.data(), config_.norm_eps, y,
                 hidden_size_, pool_);
  }

  const ModelConfig config_;
  const int64_t hidden_size_;
  const int64_t query_width_;
  const int64_t key_width_;
  cpu::ThreadPool* const pool_;
  const cpu::RopeTable rope_;
  cpu::EmbeddingTable embeddings_;
  std::vector<Qwen3Layer> layers_;
  std::vector<float> final_norm_;
  // Scratch: [max_rows, hidden] and [max_rows, intermediate].
  mutable std::vector<float> normed_;
  mutable std::vector<float> inner_;
};

absl::Status Qwen3Cpu::Load(const Weights& weights, bool prune_last) {
  const std::string embeddings = "embed_tokens.weight";
  absl::StatusOr<std::string> prefix = FindPrefix(weights, "model.", embeddings);
  if (!prefix.ok()) return prefix.status();
  CpuWeightReader reader(weights, *prefix, config_.quantization_config, pool_);

  embeddings_ = reader.Table(embeddings, config_.vocab_size, hidden_size_);
  final_norm_ = reader.Vector("norm.weight", hidden_size_);
  for (int i = 0; i < config_.num_layers && reader.status().ok(); ++i) {
    const std::string base = absl::StrCat("layers.", i, ".");
    const std::string attention = base + "self_attn.";
    const CpuWeightReader::Part query = {attention + "q_proj.weight", query_width_};
    const CpuWeightReader::Part key = {attention + "k_proj.weight", key_width_};
    const CpuWeightReader::Part value = {attention + "v_proj.weight", key_width_};
    Qwen3Layer layer;
    layer.input_norm = reader.Vector(base + "input_layernorm.weight", hidden_size_);
    if (prune_last && i == config_.num_layers - 1) {
      layer.query = reader.Matrix({query}, hidden_size_);
      layer.key_value = reader.Matrix({key, value}, hidden_size_);
    } else {
      layer.qkv = reader.Matrix({query, key, value}, hidden_size_);
    }
    layer.query_norm = reader.Vector(attention + "q_norm.weight", config_.head_dim);
    layer.key_norm = reader.Vector(attention + "k_norm.weight", config_.head_dim);
    layer.output = reader.Matrix({{attention + "o_proj.weight", hidden_size_}}, query_width_);
    layer.mlp_norm = reader.Vector(base + "post_attention_layernorm.weight", hidden_size_);
    layer.gate_up =
        reader.GatedMatrix({base + "mlp.gate_proj.weight", config_.intermediate_size},
                           {base + "mlp.up_proj.weight", config_.intermediate_size}, hidden_size_);
    layer.down =
        reader.Matrix({{base + "mlp.down_proj.weight", hidden_size_}}, config_.intermediate_size);
    layers_.push_back(std::move(layer));
  }
  return reader.status();
}

void Qwen3Cpu::Project(int layer, Projection which, const float* hidden, const int32_t* positions,
                       int64_t rows, float* out, int64_t stride) const {
  const Qwen3Layer& weights = layers_[layer];
  const cpu::PackedMatrix& matrix = which == Projection::kAll     ? weights.qkv
                                    : which == Projection::kQuery ? weights.query
                                                                  : weights.key_value;
  RmsNorm(hidden, rows, weights.input_norm, normed_.data());
  cpu::Matmul(normed_.data(), hidden_size_, rows, matrix, {}, out, stride, pool_);
  if (which != Projection::kKeyValue) {
    cpu::QkNormRope(out, stride, rows, config_.num_heads, weights.query_norm.data(),
                    config_.norm_eps, positions, rope_, pool_);
  }
  if (which != Projection::kQuery) {
    float* key = which == Projection::kAll ? out + query_width_ : out;
    cpu::QkNormRope(key, stride, rows, config_.num_kv_heads, weights.key_norm.data(),
                    config_.norm_eps, positions, rope_, pool_);
  }
}

void Qwen3Cpu::FinishLayer(int layer, const float* attended, int64_t stride, int64_t rows,
                           float* hidden) const {
  const Qwen3Layer& weights = layers_[layer];
  const cpu::Epilogue add = {.residual = hidden, .residual_stride = hidden_size_};
  cpu::Matmul(attended, stride, rows, weights.output, add, hidden, hidden_size_, pool_);
  RmsNorm(hidden, rows, weights.mlp_norm, normed_.data());
  cpu::GatedMatmul(normed_.data(), hidden_size_, rows, weights.gate_up,
                   CpuActivation(config_.activation), inner_.data(), config_.intermediate_size,
                   pool_);
  cpu::Matmul(inner_.data(), config_.intermediate_size, rows, weights.down, add, hidden,
              hidden_size_, pool_);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuModel>> CreateQwen3Cpu(const ModelConfig& config,
                                                         const Weights& weights,
                                                         const CpuModelOptions& options,
                                                         cpu::ThreadPool* pool) {
  auto model = std::make_unique<Qwen3Cpu>(config, options, pool);
  const absl::Status status = model->Load(weights, options.prune_last);
  if (!status.ok()) return status;
  return model;
}

}  // namespace quiver
