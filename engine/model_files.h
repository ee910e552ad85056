#ifndef QUIVER_ENGINE_MODEL_FILES_H_
#define QUIVER_ENGINE_MODEL_FILES_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/embedder.h"
#include "engine/model/quantization_config.h"
#include "engine/model/weights.h"
#include "engine/text/tokenizer.h"

namespace quiver {

// The files of a Hugging Face directory, opened and checked: what loading an engine begins with,
// and all that describing a model takes. Nothing is run, and of the weights only headers are read.
struct ModelFiles {
  // The name, the config and what concerns the weights, but for their fingerprint.
  ModelInfo info;
  std::unique_ptr<Tokenizer> tokenizer;
  std::shared_ptr<const Weights> weights;
};

// `name` is the name to serve under; empty for the directory's base name. NOT_FOUND or
// INVALID_ARGUMENT if there is no such directory; other errors name the file.
absl::StatusOr<ModelFiles> OpenModelFiles(const std::string& model_dir, const std::string& name,
                                          QuantizationChoice quantization);

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_FILES_H_
