// BERT on the CPU. A layer is x = norm(x + output(attention(q, k, v))), then
// x = norm(x + down(activation(up(x)))); every projection has a bias.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/run/cpu_model.h"
#include "engine/run/cpu_weights.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/norm.h"

namespace quiver {
namespace {

struct LayerNormWeights {
  std::vector<float> weight;
  std::vector<float> bias;
};

struct Linear {
  cpu::PackedMatrix matrix;
  std::vector<float> bias;
};

struct BertLayer {
  // One under another, or the query apart in a pruned last layer.
  Linear qkv;
  Linear query;
  Linear key_value;
  Linear output;
  LayerNormWeights output_norm;
  Linear up;
  Linear down;
  LayerNormWeights down_norm;
};

class BertCpu : public CpuModel {
 public:
  BertCpu(const ModelConfig& config, const CpuModelOptions& options, cpu::ThreadPool* pool)
      : config_(config),
        hidden_size_(config.hidden_size),
        pool_(pool),
        inner_(static_cast<size_t>(options.max_rows * config.intermediate_size)) {}

  absl::Status Load(const Weights& weights, bool prune_last);

  void Embed(const int32_t* ids, const int32_t* positions, int64_t rows,
             float* hidden) const override {
    cpu::Embed(words_, types_, positions_, ids, positions, rows, hidden_size_, hidden, hidden_size_,
               pool_);
    Normalize(embedding_norm_, rows, hidden);
  }

  void Project(int layer, Projection which, const float* hidden, const int32_t*, int64_t rows,
               float* out, int64_t stride) const override {
    const BertLayer& weights = layers_[layer];
    const Linear& linear = which == Projection::kAll     ? weights.qkv
                           : which == Projection::kQuery ? weights.query
                                                         : weights.key_value;
    cpu::Matmul(hidden, hidden_size_, rows, linear.matrix, {.bias = linear.bias.data()}, out,
                stride, pool_);
  }

  void FinishLayer(int layer, const float* attended, int64_t stride, int64_t rows,
                   float* hidden) const override;

  void FinishRows(int64_t, float*) const override {}

 private:
  void Normalize(const LayerNormWeights& norm, int64_t rows, float* x) const {
    cpu::LayerNorm(x, hidden_size_, rows, hidden_size_, norm.weight.data(), norm.bias.data(),
                   config_.norm_eps, x, hidden_size_, pool_);
  }

  const ModelConfig config_;
  const int64_t hidden_size_;
  cpu::ThreadPool* const pool_;
  cpu::EmbeddingTable words_;
  cpu::EmbeddingTable types_;
  cpu::EmbeddingTable positions_;
  LayerNormWeights embedding_norm_;
  std::vector<BertLayer> layers_;
  // Scratch: [max_rows, intermediate].
  mutable std::vector<float> inner_;
};

// Linears that share their input, by their names without ".weight" and ".bias".
Linear ReadLinear(CpuWeightReader& reader, const std::vector<CpuWeightReader::Part>& parts,
                  int64_t k) {
  Linear linear;
  std::vector<CpuWeightReader::Part> weights;
  for (const CpuWeightReader::Part& part : parts) {
    weights.push_back({part.name + ".weight", part.n});
    const std::vector<float> bias = reader.Vector(part.name + ".bias", part.n);
    linear.bias.insert(linear.bias.end(), bias.begin(), bias.end());
  }
  linear.matrix = reader.Matrix(weights, k);
  return linear;
}

absl::Status BertCpu::Load(const Weights& weights, bool prune_last) {
  const std::string words = "embeddings.word_embeddings.weight";
  absl::StatusOr<std::string> prefix = FindPrefix(weights, "bert.", words);
  if (!prefix.ok()) return prefix.status();
  CpuWeightReader reader(weights, *prefix, config_.quantization_config, pool_);
  const auto read_norm = [&](const std::string& name) {
    LayerNormWeights norm;
    norm.weight = reader.Vector(name + ".weight", hidden_size_);
    norm.bias = reader.Vector(name + ".bias", hidden_size_);
    return norm;
  };

  words_ = reader.Table(words, config_.vocab_size, hidden_size_);
  types_ = reader.Table("embeddings.token_type_embeddings.weight", config_.type_vocab_size,
                        hidden_size_);
  positions_ =
      reader.Table("embeddings.position_embeddings.weight", config_.max_positions, hidden_size_);
  embedding_norm_ = read_norm("embeddings.LayerNorm");
  for (int i = 0; i < config_.num_layers && reader.status().ok(); ++i) {
    const std::string base = absl::StrCat("encoder.layer.", i, ".");
    const std::string attention = base + "attention.self.";
    const CpuWeightReader::Part query = {attention + "query", hidden_size_};
    const CpuWeightReader::Part key = {attention + "key", hidden_size_};
    const CpuWeightReader::Part value = {attention + "value", hidden_size_};
    BertLayer layer;
    if (prune_last && i == config_.num_layers - 1) {
      layer.query = ReadLinear(reader, {query}, hidden_size_);
      layer.key_value = ReadLinear(reader, {key, value}, hidden_size_);
    } else {
      layer.qkv = ReadLinear(reader, {query, key, value}, hidden_size_);
    }
    layer.output =
        ReadLinear(reader, {{base + "attention.output.dense", hidden_size_}}, hidden_size_);
    layer.output_norm = read_norm(base + "attention.output.LayerNorm");
    layer.up = ReadLinear(reader, {{base + "intermediate.dense", config_.intermediate_size}},
                          hidden_size_);
    layer.down =
        ReadLinear(reader, {{base + "output.dense", hidden_size_}}, config_.intermediate_size);
    layer.down_norm = read_norm(base + "output.LayerNorm");
    layers_.push_back(std::move(layer));
  }
  return reader.status();
}

void BertCpu::FinishLayer(int layer, const float* attended, int64_t stride, int64_t rows,
                          float* hidden) const {
  const BertLayer& weights = layers_[layer];
  const auto biased_sum = [&](const Linear& linear) {
    return cpu::Epilogue{
        .bias = linear.bias.data(), .residual = hidden, .residual_stride = hidden_size_};
  };
  cpu::Matmul(attended, stride, rows, weights.output.matrix, biased_sum(weights.output), hidden,
              hidden_size_, pool_);
  Normalize(weights.output_norm, rows, hidden);
  cpu::Matmul(hidden, hidden_size_, rows, weights.up.matrix,
              {.bias = weights.up.bias.data(), .activation = CpuActivation(config_.activation)},
              inner_.data(), config_.intermediate_size, pool_);
  cpu::Matmul(inner_.data(), config_.intermediate_size, rows, weights.down.matrix,
              biased_sum(weights.down), hidden, hidden_size_, pool_);
  Normalize(weights.down_norm, rows, hidden);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CpuModel>> CreateBertCpu(const ModelConfig& config,
                                                        const Weights& weights,
                                                        const CpuModelOptions& options,
                                                        cpu::ThreadPool* pool) {
  auto model = std::make_unique<BertCpu>(config, options, pool);
  const absl::Status status = model->Load(weights, options.prune_last);
  if (!status.ok()) return status;
  return model;
}

}  // namespace quiver
