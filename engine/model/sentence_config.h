// The files that sentence-transformers lays beside config.json.
#ifndef QUIVER_ENGINE_MODEL_SENTENCE_CONFIG_H_
#define QUIVER_ENGINE_MODEL_SENTENCE_CONFIG_H_

#include <string>

#include "absl/status/status.h"
#include "engine/model/model_config.h"

namespace quiver {

// Completes *config, whose family and shape are set, from modules.json, the pooling module's
// config.json, sentence_bert_config.json, tokenizer_config.json and
// config_sentence_transformers.json. A file that is absent leaves what sentence-transformers would
// take, and for a Qwen3 model without modules.json what Qwen3-Embedding has: last-token pooling,
// normalized.
absl::Status LoadSentenceConfig(const std::string& model_dir, ModelConfig* config);

}  // namespace quiver

#endif  // QUIVER_ENGINE_MODEL_SENTENCE_CONFIG_H_
