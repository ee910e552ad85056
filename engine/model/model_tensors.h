// The tensors of a checkpoint that a configuration asks for.
#ifndef QUIVER_ENGINE_MODEL_MODEL_TENSORS_H_
#define QUIVER_ENGINE_MODEL_MODEL_TENSORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"

namespace quiver {

// What a tensor is for, as far as its values depend on that.
enum class TensorRole : uint8_t {
  // A table of vectors: a row an id, a position or a type.
  kEmbedding,
  // [outputs, inputs] of a Linear: what queries and keys are made by; any other; and the last of a
  // branch, whose result is added to the residual stream.
  kQueryKey,
  kLinear,
  kBranchEnd,
  // Vectors: factors of a norm, those of Qwen3's norm on queries and keys, and biases.
  kNorm,
  kQueryKeyNorm,
  kBias,
};

struct ModelTensor {
  // As Hugging Face spells it, without a prefix ("model.", "bert."), as embedding models are saved.
  std::string name;
  std::vector<int64_t> shape;
  TensorRole role = TensorRole::kLinear;

  int64_t num_elements() const;
};

// All that a model reads, in the order it reads them: embeddings, layer by layer, final norm.
std::vector<ModelTensor> ModelTensors(const ModelConfig& config);

// INVALID_ARGUMENT names a tensor of a layer past those that the configuration counts: it belongs
// to another model, whose vectors fewer layers would not give.
absl::Status CheckNoFurtherLayer(const ModelConfig& config, const Weights& weights);

// Elements of the Linears' matrices, which every token is multiplied by.
int64_t NumLinearParameters(const ModelConfig& config);

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_MODEL_TENSORS_H_
