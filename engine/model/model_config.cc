#include "engine/model/model_config.h"

#include <cstdint>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/model/json_file.h"
#include "engine/model/sentence_config.h"

namespace quiver {
namespace {

constexpr absl::StatusCode kUnimplemented = absl::StatusCode::kUnimplemented;

// Far beyond any model, and small enough that a product of two fits 64 bits with room.
constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxRows = 1 << 28;
constexpr int64_t kMaxLayers = 4096;

int ReadInt(JsonFile& file, const char* key, int64_t max,
            std::optional<int64_t> fallback = std::nullopt) {
  return static_cast<int>(file.Integer(key, 1, max, fallback));
}

// Refuses a `key` that is true.
void MustBeOff(JsonFile& file, const char* key) {
  if (file.Bool(key, false)) file.Refuse(kUnimplemented, key, "false", true);
}

std::optional<Activation> ActivationOf(const std::string& name) {
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") {
    return Activation::kGeluTanh;
  }
  if (name == "relu") return Activation::kRelu;
  if (name == "silu" || name == "swish") return Activation::kSilu;
  return std::nullopt;
}

void ReadShape(JsonFile& file, ModelConfig* config) {
  config->hidden_size = ReadInt(file, "hidden_size", kMaxWidth);
  config->intermediate_size = ReadInt(file, "intermediate_size", kMaxWidth);
  config->num_layers = ReadInt(file, "num_hidden_layers", kMaxLayers);
  config->num_heads = ReadInt(file, "num_attention_heads", kMaxWidth);
  config->vocab_size = ReadInt(file, "vocab_size", kMaxRows);
  config->max_positions = ReadInt(file, "max_position_embeddings", kMaxRows);
}

void ReadActivation(JsonFile& file, const char* fallback, ModelConfig* config) {
  const std::string name = file.String("hidden_act", fallback);
  const std::optional<Activation> activation = ActivationOf(name);
  if (!activation) {
    file.Refuse(kUnimplemented, "hidden_act",
                "gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu, silu or swish", name);
  }
  config->activation = activation.value_or(Activation::kSilu);
}

// rope_scaling, or rope_parameters as newer versions of `transformers` write it, which holds the
// base too.
void ReadRope(JsonFile& file, ModelConfig* config) {
  constexpr double kMaxTheta = std::numeric_limits<float>::max();
  constexpr double kDefaultTheta = 10000.0;
  double theta = file.Number("rope_theta", 0.0, kMaxTheta, kDefaultTheta);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const nlohmann::ordered_json* rope = file.Find(key);
    if (rope == nullptr) continue;
    if (!rope->is_object()) {
      file.Refuse(absl::StatusCode::kInvalidArgument, key, "null or an object", *rope);
      return;
    }
    JsonFile fields(absl::StrCat(file.path(), ": ", key), *rope);
    const std::string type = fields.String("rope_type", fields.String("type", "default"));
    if (type != "default" && type != "none") {
      fields.Refuse(kUnimplemented, "rope_type", "default", type);
    }
    if (fields.Find("factor") != nullptr && *fields.Find("factor") != 1.0) {
      fields.Refuse(kUnimplemented, "factor", "1", *fields.Find("factor"));
    }
    theta = fields.Number("rope_theta", 0.0, kMaxTheta, theta);
    file.Adopt(fields.status());
  }
  config->rope_theta = static_cast<float>(theta);
}

// Layers from max_window_layers on look back sliding_window tokens if use_sliding_window is set;
// or layer_types says it layer by layer. A window that no input exceeds is none.
void RefuseSlidingWindow(JsonFile& file, const ModelConfig& config) {
  const bool used = file.Bool("use_sliding_window", false);
  const int64_t window =
      file.Integer("sliding_window", 1, kMaxRows, std::numeric_limits<int>::max());
  const int64_t first =
      file.Integer("max_window_layers", 0, std::numeric_limits<int>::max(), config.num_layers);
  bool sliding = used && first < config.num_layers;
  if (const nlohmann::ordered_json* types = file.Find("layer_types")) {
    sliding = false;
    if (!types->is_array() || types->size() != static_cast<size_t>(config.num_layers)) {
      file.Refuse(absl::StatusCode::kInvalidArgument, "layer_types",
                  absl::StrCat("an array of ", config.num_layers, " names"), *types);
    } else {
      for (const nlohmann::ordered_json& type : *types) {
        if (type == "sliding_attention") {
          sliding = true;
        } else if (type != "full_attention") {
          file.Refuse(kUnimplemented, "layer_types", "full_attention in every layer", type);
        }
      }
    }
  }
  if (sliding && window < config.max_positions) {
    file.Refuse(kUnimplemented, "sliding_window",
                absl::StrCat("at least max_position_embeddings (", config.max_positions,
                             ") where a layer uses it"),
                window);
  }
}

void ReadQwen3(JsonFile& file, ModelConfig* config) {
  config->family = Family::kQwen3;
  ReadShape(file, config);
  config->num_kv_heads = ReadInt(file, "num_key_value_heads", kMaxWidth, config->num_heads);
  config->head_dim = ReadInt(file, "head_dim", kMaxWidth, 128);
  config->norm_eps = static_cast<float>(file.Number("rms_norm_eps", 0.0, 1.0, 1e-6));
  if (config->num_heads % config->num_kv_heads != 0) {
    file.Refuse(absl::StatusCode::kInvalidArgument, "num_key_value_heads",
                absl::StrCat("a divisor of num_attention_heads (", config->num_heads, ")"),
                config->num_kv_heads);
  }
  if (config->head_dim % 2 != 0) {
    file.Refuse(absl::StatusCode::kInvalidArgument, "head_dim", "even", config->head_dim);
  }
  ReadActivation(file, "silu", config);
  ReadRope(file, config);
  RefuseSlidingWindow(file, *config);
  MustBeOff(file, "attention_bias");
  MustBeOff(file, "use_bidirectional_attention");
  if (!file.Bool("is_causal", true)) file.Refuse(kUnimplemented, "is_causal", "true", false);
}

void ReadBert(JsonFile& file, ModelConfig* config) {
  config->family = Family::kBert;
  ReadShape(file, config);
  config->num_kv_heads = config->num_heads;
  config->head_dim = config->hidden_size / config->num_heads;
  if (config->hidden_size % config->num_heads != 0) {
    file.Refuse(absl::StatusCode::kInvalidArgument, "num_attention_heads",
                absl::StrCat("a divisor of hidden_size (", config->hidden_size, ")"),
                config->num_heads);
  }
  config->norm_eps = static_cast<float>(file.Number("layer_norm_eps", 0.0, 1.0, 1e-12));
  config->type_vocab_size = ReadInt(file, "type_vocab_size", kMaxRows, 2);
  ReadActivation(file, "gelu", config);
  const std::string positions = file.String("position_embedding_type", "absolute");
  if (positions != "absolute") {
    file.Refuse(kUnimplemented, "position_embedding_type", "absolute", positions);
  }
  MustBeOff(file, "is_decoder");
  MustBeOff(file, "add_cross_attention");
}

void ReadQuantization(JsonFile& file, ModelConfig* config) {
  const nlohmann::ordered_json* quantization = file.Find("quantization_config");
  if (quantization == nullptr) return;
  JsonFile fields(absl::StrCat(file.path(), ": quantization_config"), *quantization);
  if (!quantization->is_object()) {
    file.Refuse(absl::StatusCode::kInvalidArgument, "quantization_config", "an object",
                *quantization);
    return;
  }
  absl::StatusOr<QuantizationConfig> parsed = QuantizationConfig::Parse(std::move(fields));
  if (!parsed.ok()) return file.Adopt(parsed.status());
  config->quantization_config = *std::move(parsed);
  config->quantization = config->quantization_config.Description();
}

}  // namespace

const char* FamilyName(Family family) {
  switch (family) {
    case Family::kQwen3:
      return "qwen3";
    case Family::kBert:
      return "bert";
  }
  return "unknown";
}

const char* PoolingName(Pooling pooling) {
  switch (pooling) {
    case Pooling::kLastToken:
      return "last";
    case Pooling::kMean:
      return "mean";
    case Pooling::kCls:
      return "cls";
  }
  return "unknown";
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir) {
  absl::StatusOr<JsonFile> read = JsonFile::Read(absl::StrCat(model_dir, "/config.json"));
  if (!read.ok()) return read.status();
  JsonFile& file = *read;

  ModelConfig config;
  const std::string type = file.String("model_type");
  if (type == "qwen3") {
    ReadQwen3(file, &config);
  } else if (type == "bert") {
    ReadBert(file, &config);
  } else {
    file.Refuse(kUnimplemented, "model_type", "qwen3 or bert", type);
  }
  ReadQuantization(file, &config);
  if (!file.status().ok()) return file.status();

  const absl::Status status = LoadSentenceConfig(model_dir, &config);
  if (!status.ok()) return status;
  return config;
}

}  // namespace quiver
