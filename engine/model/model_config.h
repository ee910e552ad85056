#ifndef QUIVER_ENGINE_MODEL_MODEL_CONFIG_H_
#define QUIVER_ENGINE_MODEL_MODEL_CONFIG_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/quantization_config.h"

namespace quiver {

enum class Family { kQwen3, kBert };
enum class Pooling { kLastToken, kMean, kCls };
enum class Activation { kSilu, kGelu, kGeluTanh, kRelu };

// Names as they stand in logs and on the wire: "qwen3", "last".
const char* FamilyName(Family family);
const char* PoolingName(Pooling pooling);

// Everything about a model but its weights and its vocabulary, gathered from the files of a Hugging
// Face directory: config.json, modules.json, 1_Pooling/config.json, sentence_bert_config.json,
// config_sentence_transformers.json.
struct ModelConfig {
  Family family = Family::kQwen3;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int vocab_size = 0;
  // Longest sequence the positions allow, and the limit that holds unless a flag raises it up to
  // that.
  int max_positions = 0;
  int default_max_tokens = 0;
  float norm_eps = 0.0f;
  // Qwen3 only.
  float rope_theta = 0.0f;
  Activation activation = Activation::kSilu;
  // BERT only.
  int type_vocab_size = 0;

  Pooling pooling = Pooling::kLastToken;
  // Whether modules.json ends in a Normalize module; requests normalize by default either way.
  bool normalizes = true;

  // Lengths that a vector may be cut to: [min_dimensions, hidden_size]; equal where the model was
  // not trained for it.
  int min_dimensions = 0;

  // Prompts by name, in the file's order, and the default's name (empty: none).
  std::vector<std::pair<std::string, std::string>> prompts;
  std::string default_prompt_name;
  // How a free instruction becomes a prompt, with "{instruction}" in it; empty if the model takes
  // none.
  std::string instruction_template;

  // How config.json says that Linears are quantized, and the same in words, as part of a vector
  // space's name: "none", or such as "awq: int4 in groups of 128".
  QuantizationConfig quantization_config;
  std::string quantization = "none";

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// Reads and checks the files of `model_dir`. Errors name the file, the key, what is allowed and
// what is there: NOT_FOUND, INVALID_ARGUMENT for a malformed or contradictory file, UNIMPLEMENTED
// for what Quiver does not run.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir);

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_MODEL_CONFIG_H_
