// Public models by name: what their files say of them, for benches and random checkpoints that have
// no files.
#ifndef QUIVER_ENGINE_MODEL_MODEL_SHAPES_H_
#define QUIVER_ENGINE_MODEL_MODEL_SHAPES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/model/model_config.h"

namespace quiver {

// "qwen3-embedding-0.6b", "-4b", "-8b", "all-minilm-l6-v2".
std::vector<std::string> ModelShapeNames();

// What LoadModelConfig gives for that model's directory. NOT_FOUND names those there are.
absl::StatusOr<ModelConfig> NamedModelShape(absl::string_view name);

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_MODEL_SHAPES_H_
