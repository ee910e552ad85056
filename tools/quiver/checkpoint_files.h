// The files of a Hugging Face directory beside its weights, written from a configuration.
#ifndef QUIVER_TOOLS_QUIVER_CHECKPOINT_FILES_H_
#define QUIVER_TOOLS_QUIVER_CHECKPOINT_FILES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/model/model_config.h"
#include "nlohmann/json.hpp"

namespace quiver {

// What config.json would say of the model, as transformers writes it. `dtype` is torch's name of
// the weights' type, such as "bfloat16".
nlohmann::ordered_json ConfigJson(const ModelConfig& config, const std::string& dtype);

// A tokenizer for models that have none: for Qwen3 byte-level BPE without merges, so an id a byte
// and <|endoftext|> behind the text; for BERT WordPiece of single characters (lowercase ASCII)
// between [CLS] and [SEP].
nlohmann::ordered_json PlainTokenizerJson(Family family);

// modules.json, 1_Pooling/config.json, sentence_bert_config.json and
// config_sentence_transformers.json in `model_dir`, so that loading it gives `config` back.
absl::Status WriteSentenceFiles(const ModelConfig& config, const std::string& model_dir);

// Writes `text` to `path`; FAILED_PRECONDITION names the file.
absl::Status WriteTextFile(const std::string& path, absl::string_view text);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_CHECKPOINT_FILES_H_
