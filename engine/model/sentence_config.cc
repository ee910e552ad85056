#include "engine/model/sentence_config.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/model/json_file.h"

namespace quiver {
namespace {

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kUnimplemented = absl::StatusCode::kUnimplemented;

// Longest input without a flag: what the Qwen3-Embedding cards promise.
constexpr int kDefaultMaxTokens = 32768;
// Shortest vector that Qwen3-Embedding was trained for.
constexpr int kQwen3MinDimensions = 32;

struct Modules {
  // Folder of the pooling module's config.json.
  std::string pooling_path = "1_Pooling";
  bool present = false;
  bool normalizes = false;
};

// A folder beside the other files, not one elsewhere.
bool IsPlainFolder(absl::string_view path) {
  return !path.empty() && path != "." && path != ".." && !absl::StrContains(path, '/') &&
         !absl::StrContains(path, '\\') && !absl::StrContains(path, '\0');
}

absl::StatusOr<Modules> ReadModules(const std::string& path) {
  Modules modules;
  absl::StatusOr<nlohmann::ordered_json> list = ReadJsonValue(path, kMaxSettingsBytes);
  if (absl::IsNotFound(list.status())) return modules;
  if (!list.ok()) return list.status();
  modules.present = true;

  JsonFile file(path, *std::move(list));
  if (!file.value().is_array()) {
    file.Refuse(kInvalid, "the outermost value", "an array of modules", file.value());
    return file.status();
  }
  std::vector<std::string> kinds;
  for (size_t i = 0; i < file.value().size(); ++i) {
    JsonFile module(absl::StrCat(path, ": module ", i), file.value()[i]);
    if (!module.value().is_object()) {
      module.Refuse(kInvalid, "it", "an object", module.value());
      return module.status();
    }
    const std::string type = module.String("type");
    const std::string folder = module.String("path", "");
    if (!module.status().ok()) return module.status();
    const std::vector<std::string> parts = absl::StrSplit(type, '.');
    kinds.push_back(parts.back());
    if (parts.front() != "sentence_transformers" ||
        (kinds[i] != "Transformer" && kinds[i] != "Pooling" && kinds[i] != "Normalize")) {
      module.Refuse(kUnimplemented, "type",
                    "a Transformer, Pooling or Normalize of sentence_transformers", type);
    } else if (kinds[i] == "Transformer" && !folder.empty()) {
      module.Refuse(kUnimplemented, "path", "empty, the model's files being in the model directory",
                    folder);
    } else if (kinds[i] == "Pooling") {
      if (!IsPlainFolder(folder)) {
        module.Refuse(kInvalid, "path", "the name of a folder in the model directory", folder);
      }
      modules.pooling_path = folder;
    }
    if (!module.status().ok()) return module.status();
  }
  const std::vector<std::string> plain = {"Transformer", "Pooling"};
  const std::vector<std::string> normalized = {"Transformer", "Pooling", "Normalize"};
  if (kinds != plain && kinds != normalized) {
    return absl::UnimplementedError(
        absl::StrCat(path, ": the modules must be Transformer, Pooling and perhaps Normalize, are ",
                     kinds.empty() ? "none" : absl::StrJoin(kinds, ", ")));
  }
  modules.normalizes = kinds == normalized;
  return modules;
}

struct PoolingMode {
  // In `pooling_mode`, and as a flag of its own.
  const char* name;
  const char* flag;
};
constexpr PoolingMode kPoolingModes[] = {
    {"cls", "pooling_mode_cls_token"},
    {"mean", "pooling_mode_mean_tokens"},
    {"lasttoken", "pooling_mode_lasttoken"},
    {"max", "pooling_mode_max_tokens"},
    {"mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"},
    {"weightedmean", "pooling_mode_weightedmean_tokens"},
};

absl::Status ReadPooling(const std::string& path, ModelConfig* config) {
  absl::StatusOr<JsonFile> read = JsonFile::Read(path);
  if (!read.ok()) return read.status();
  JsonFile& file = *read;

  for (const char* key : {"word_embedding_dimension", "embedding_dimension"}) {
    const nlohmann::ordered_json* dimension = file.Find(key);
    if (dimension != nullptr && *dimension != config->hidden_size) {
      file.Refuse(kInvalid, key,
                  absl::StrCat(config->hidden_size, ", as config.json's hidden_size"), *dimension);
    }
  }

  std::vector<std::string> modes;
  for (const PoolingMode& mode : kPoolingModes) {
    if (file.Bool(mode.flag, false)) modes.push_back(mode.name);
  }
  const std::string named = file.String("pooling_mode", "");
  if (!named.empty()) modes = {named};
  if (!file.status().ok()) return file.status();
  if (modes.size() != 1) {
    return absl::Status(modes.empty() ? kInvalid : kUnimplemented,
                        absl::StrCat(path, ": exactly one pooling mode must be on, on are ",
                                     modes.empty() ? "none" : absl::StrJoin(modes, ", ")));
  }
  if (modes[0] == "cls") {
    config->pooling = Pooling::kCls;
  } else if (modes[0] == "mean") {
    config->pooling = Pooling::kMean;
  } else if (modes[0] == "lasttoken") {
    config->pooling = Pooling::kLastToken;
  } else {
    file.Refuse(kUnimplemented, "the pooling mode", "cls, mean or lasttoken", modes[0]);
  }
  // The last token is never one of the prompt's.
  if (!file.Bool("include_prompt", true) && config->pooling != Pooling::kLastToken) {
    file.Refuse(kUnimplemented, "include_prompt", "true for this pooling mode", false);
  }
  return file.status();
}

absl::Status ReadMaxTokens(const std::string& model_dir, ModelConfig* config) {
  config->default_max_tokens = std::min(config->max_positions, kDefaultMaxTokens);

  absl::StatusOr<JsonFile> tokenizer =
      JsonFile::ReadIfPresent(absl::StrCat(model_dir, "/tokenizer_config.json"));
  if (!tokenizer.ok()) return tokenizer.status();
  absl::StatusOr<JsonFile> transformer =
      JsonFile::ReadIfPresent(absl::StrCat(model_dir, "/sentence_bert_config.json"));
  if (!transformer.ok()) return transformer.status();

  const nlohmann::ordered_json* limit = transformer->Find("max_seq_length");
  if (limit != nullptr) {
    config->default_max_tokens =
        static_cast<int>(transformer->Integer("max_seq_length", 1, config->max_positions));
  } else if (const nlohmann::ordered_json* length = tokenizer->Find("model_max_length")) {
    // Where there is no limit, `transformers` writes 1e30.
    if (!length->is_number() || !(length->get<double>() >= 1)) {
      tokenizer->Refuse(kInvalid, "model_max_length", "a number of at least 1", *length);
    } else if (length->get<double>() < config->default_max_tokens) {
      config->default_max_tokens = static_cast<int>(length->get<double>());
    }
  }
  // Lowercasing before the tokenizer changes nothing where the tokenizer does it too.
  if (transformer->Bool("do_lower_case", false) && !tokenizer->Bool("do_lower_case", false)) {
    transformer->Refuse(kUnimplemented, "do_lower_case",
                        "false unless tokenizer_config.json has it too", true);
  }
  return transformer->status().ok() ? tokenizer->status() : transformer->status();
}

absl::Status ReadPrompts(const std::string& path, ModelConfig* config) {
  absl::StatusOr<JsonFile> read = JsonFile::ReadIfPresent(path);
  if (!read.ok()) return read.status();
  JsonFile& file = *read;

  if (const nlohmann::ordered_json* prompts = file.Find("prompts")) {
    if (!prompts->is_object()) {
      file.Refuse(kInvalid, "prompts", "an object of strings", *prompts);
      return file.status();
    }
    for (const auto& [name, prompt] : prompts->items()) {
      if (!prompt.is_string()) {
        file.Refuse(kInvalid, absl::StrCat("prompts.", name), "a string", prompt);
        return file.status();
      }
      config->prompts.emplace_back(name, prompt.get<std::string>());
    }
  }
  config->default_prompt_name = file.String("default_prompt_name", "");
  const auto is_default = [&](const auto& prompt) {
    return prompt.first == config->default_prompt_name;
  };
  if (!config->default_prompt_name.empty() &&
      std::none_of(config->prompts.begin(), config->prompts.end(), is_default)) {
    const auto name = [](std::string* out, const auto& prompt) { out->append(prompt.first); };
    file.Refuse(kInvalid, "default_prompt_name",
                absl::StrCat("null or one of the prompts (",
                             absl::StrJoin(config->prompts, ", ", name), ")"),
                config->default_prompt_name);
  }
  return file.status();
}

}  // namespace

absl::Status LoadSentenceConfig(const std::string& model_dir, ModelConfig* config) {
  const absl::StatusOr<Modules> modules = ReadModules(absl::StrCat(model_dir, "/modules.json"));
  if (!modules.ok()) return modules.status();

  const bool qwen3 = config->family == Family::kQwen3;
  config->pooling = qwen3 ? Pooling::kLastToken : Pooling::kMean;
  config->normalizes = modules->present ? modules->normalizes : qwen3;
  config->min_dimensions =
      qwen3 ? std::min(kQwen3MinDimensions, config->hidden_size) : config->hidden_size;
  if (qwen3) config->instruction_template = "Instruct: {instruction}\nQuery:";

  absl::Status status =
      ReadPooling(absl::StrCat(model_dir, "/", modules->pooling_path, "/config.json"), config);
  // Without modules.json the pooling may be left to the default.
  if (absl::IsNotFound(status) && !modules->present) status = absl::OkStatus();
  if (status.ok()) status = ReadMaxTokens(model_dir, config);
  if (status.ok()) {
    status = ReadPrompts(absl::StrCat(model_dir, "/config_sentence_transformers.json"), config);
  }
  return status;
}

}  // namespace quiver
