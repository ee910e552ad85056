#include "engine/model/model_tensors.h"

#include <cstdint>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace quiver {
namespace {

class TensorList {
 public:
  void Add(std::string name, std::vector<int64_t> shape, TensorRole role) {
    tensors_.push_back({std::move(name), std::move(shape), role});
  }
  void AddNorm(const std::string& name, int64_t n, TensorRole role = TensorRole::kNorm) {
    Add(name + ".weight", {n}, role);
  }
  void AddMatrix(const std::string& name, int64_t n, int64_t k,
                 TensorRole role = TensorRole::kLinear) {
    Add(name + ".weight", {n, k}, role);
  }
  void AddBiasedMatrix(const std::string& name, int64_t n, int64_t k,
                       TensorRole role = TensorRole::kLinear) {
    AddMatrix(name, n, k, role);
    Add(name + ".bias", {n}, TensorRole::kBias);
  }
  void AddBiasedNorm(const std::string& name, int64_t n) {
    AddNorm(name, n);
    Add(name + ".bias", {n}, TensorRole::kBias);
  }

  std::vector<ModelTensor> Take() { return std::move(tensors_); }

 private:
  std::vector<ModelTensor> tensors_;
};

std::vector<ModelTensor> Qwen3Tensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  const int64_t query = int64_t{config.num_heads} * config.head_dim;
  const int64_t key = int64_t{config.num_kv_heads} * config.head_dim;
  TensorList list;
  list.AddMatrix("embed_tokens", config.vocab_size, hidden, TensorRole::kEmbedding);
  for (int i = 0; i < config.num_layers; ++i) {
    const std::string layer = absl::StrCat("layers.", i, ".");
    const std::string attention = layer + "self_attn.";
    list.AddNorm(layer + "input_layernorm", hidden);
    list.AddMatrix(attention + "q_proj", query, hidden, TensorRole::kQueryKey);
    list.AddMatrix(attention + "k_proj", key, hidden, TensorRole::kQueryKey);
    list.AddMatrix(attention + "v_proj", key, hidden);
    list.AddNorm(attention + "q_norm", config.head_dim, TensorRole::kQueryKeyNorm);
    list.AddNorm(attention + "k_norm", config.head_dim, TensorRole::kQueryKeyNorm);
    list.AddMatrix(attention + "o_proj", hidden, query, TensorRole::kBranchEnd);
    list.AddNorm(layer + "post_attention_layernorm", hidden);
    list.AddMatrix(layer + "mlp.gate_proj", inner, hidden);
    list.AddMatrix(layer + "mlp.up_proj", inner, hidden);
    list.AddMatrix(layer + "mlp.down_proj", hidden, inner, TensorRole::kBranchEnd);
  }
  list.AddNorm("norm", hidden);
  return list.Take();
}

std::vector<ModelTensor> BertTensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  TensorList list;
  list.AddMatrix("embeddings.word_embeddings", config.vocab_size, hidden, TensorRole::kEmbedding);
  list.AddMatrix("embeddings.position_embeddings", config.max_positions, hidden,
                 TensorRole::kEmbedding);
  list.AddMatrix("embeddings.token_type_embeddings", config.type_vocab_size, hidden,
                 TensorRole::kEmbedding);
  list.AddBiasedNorm("embeddings.LayerNorm", hidden);
  for (int i = 0; i < config.num_layers; ++i) {
    const std::string layer = absl::StrCat("encoder.layer.", i, ".");
    const std::string attention = layer + "attention.";
    list.AddBiasedMatrix(attention + "self.query", hidden, hidden, TensorRole::kQueryKey);
    list.AddBiasedMatrix(attention + "self.key", hidden, hidden, TensorRole::kQueryKey);
    list.AddBiasedMatrix(attention + "self.value", hidden, hidden);
    list.AddBiasedMatrix(attention + "output.dense", hidden, hidden, TensorRole::kBranchEnd);
    list.AddBiasedNorm(attention + "output.LayerNorm", hidden);
    list.AddBiasedMatrix(layer + "intermediate.dense", inner, hidden);
    list.AddBiasedMatrix(layer + "output.dense", hidden, inner, TensorRole::kBranchEnd);
    list.AddBiasedNorm(layer + "output.LayerNorm", hidden);
  }
  return list.Take();
}

}  // namespace

int64_t ModelTensor::num_elements() const {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

absl::Status CheckNoFurtherLayer(const ModelConfig& config, const Weights& weights) {
  const bool bert = config.family == Family::kBert;
  for (const auto& [full_name, tensor] : weights.tensors()) {
    absl::string_view name = full_name;
    absl::ConsumePrefix(&name, bert ? "bert." : "model.");
    if (!absl::ConsumePrefix(&name, bert ? "encoder.layer." : "layers.")) continue;
    int64_t layer = 0;
    if (!absl::SimpleAtoi(name.substr(0, name.find('.')), &layer) || layer < config.num_layers) {
      continue;
    }
    return absl::InvalidArgumentError(
        absl::StrCat(tensor.file, ": tensor \"", absl::Utf8SafeCEscape(full_name),
                     "\" is of a layer that config.json does not count: num_hidden_layers is ",
                     config.num_layers, ", layers are numbered from 0"));
  }
  return absl::OkStatus();
}

std::vector<ModelTensor> ModelTensors(const ModelConfig& config) {
  return config.family == Family::kBert ? BertTensors(config) : Qwen3Tensors(config);
}

int64_t NumLinearParameters(const ModelConfig& config) {
  int64_t count = 0;
  for (const ModelTensor& tensor : ModelTensors(config)) {
    if (tensor.role != TensorRole::kEmbedding && tensor.shape.size() == 2) {
      count += tensor.num_elements();
    }
  }
  return count;
}

}  // namespace quiver
