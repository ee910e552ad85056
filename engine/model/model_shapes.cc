#include "engine/model/model_shapes.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace quiver {
namespace {

struct Shape {
  const char* name;
  Family family;
  int hidden_size;
  int intermediate_size;
  int num_layers;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int vocab_size;
  int max_positions;
  int default_max_tokens;
};

constexpr Shape kShapes[] = {
    {"qwen3-embedding-0.6b", Family::kQwen3, 1024, 3072, 28, 16, 8, 128, 151669, 32768, 32768},
    {"qwen3-embedding-4b", Family::kQwen3, 2560, 9728, 36, 32, 8, 128, 151665, 40960, 32768},
    {"qwen3-embedding-8b", Family::kQwen3, 4096, 12288, 36, 32, 8, 128, 151665, 40960, 32768},
    {"all-minilm-l6-v2", Family::kBert, 384, 1536, 6, 12, 12, 32, 30522, 512, 256},
};

ModelConfig ConfigOf(const Shape& shape) {
  ModelConfig config;
  config.family = shape.family;
  config.hidden_size = shape.hidden_size;
  config.intermediate_size = shape.intermediate_size;
  config.num_layers = shape.num_layers;
  config.num_heads = shape.num_heads;
  config.num_kv_heads = shape.num_kv_heads;
  config.head_dim = shape.head_dim;
  config.vocab_size = shape.vocab_size;
  config.max_positions = shape.max_positions;
  config.default_max_tokens = shape.default_max_tokens;
  if (shape.family == Family::kBert) {
    config.norm_eps = 1e-12f;
    config.activation = Activation::kGelu;
    config.type_vocab_size = 2;
    config.pooling = Pooling::kMean;
    config.min_dimensions = shape.hidden_size;
    return config;
  }
  config.norm_eps = 1e-6f;
  config.rope_theta = 1e6f;
  config.min_dimensions = 32;
  config.prompts = {{"query",
                     "Instruct: Given a web search query, retrieve relevant passages that answer "
                     "the query\nQuery:"},
                    {"document", ""}};
  config.instruction_template = "Instruct: {instruction}\nQuery:";
  return config;
}

}  // namespace

std::vector<std::string> ModelShapeNames() {
  std::vector<std::string> names;
  for (const Shape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

absl::StatusOr<ModelConfig> NamedModelShape(absl::string_view name) {
  for (const Shape& shape : kShapes) {
    if (name == shape.name) return ConfigOf(shape);
  }
  return absl::NotFoundError(absl::StrCat("there is no shape '", name, "'; there are ",
                                          absl::StrJoin(ModelShapeNames(), ", ")));
}

}  // namespace quiver
