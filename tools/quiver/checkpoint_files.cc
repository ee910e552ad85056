#include "tools/quiver/checkpoint_files.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"

namespace quiver {
namespace {

using nlohmann::ordered_json;

const char* ActivationName(Activation activation) {
  switch (activation) {
    case Activation::kSilu:
      return "silu";
    case Activation::kGelu:
      return "gelu";
    case Activation::kGeluTanh:
      return "gelu_new";
    case Activation::kRelu:
      return "relu";
  }
  return "silu";
}

// Floats come from short decimals: the double nearest to the float is not what was meant.
double Decimal(float value) { return std::stod(absl::StrCat(value)); }

ordered_json ModulesJson(bool normalizes) {
  ordered_json modules = ordered_json::array();
  const auto add = [&modules](const char* path, const char* kind) {
    modules.push_back({{"idx", modules.size()},
                       {"name", absl::StrCat(modules.size())},
                       {"path", path},
                       {"type", absl::StrCat("sentence_transformers.models.", kind)}});
  };
  add("", "Transformer");
  add("1_Pooling", "Pooling");
  if (normalizes) add("2_Normalize", "Normalize");
  return modules;
}

ordered_json PoolingJson(const ModelConfig& config) {
  return {{"word_embedding_dimension", config.hidden_size},
          {"pooling_mode_cls_token", config.pooling == Pooling::kCls},
          {"pooling_mode_mean_tokens", config.pooling == Pooling::kMean},
          {"pooling_mode_max_tokens", false},
          {"pooling_mode_mean_sqrt_len_tokens", false},
          {"pooling_mode_weightedmean_tokens", false},
          {"pooling_mode_lasttoken", config.pooling == Pooling::kLastToken},
          {"include_prompt", true}};
}

ordered_json PromptsJson(const ModelConfig& config) {
  ordered_json prompts = ordered_json::object();
  for (const auto& [name, prompt] : config.prompts) prompts[name] = prompt;
  ordered_json json = {{"prompts", prompts}, {"default_prompt_name", nullptr}};
  if (!config.default_prompt_name.empty()) json["default_prompt_name"] = config.default_prompt_name;
  json["similarity_fn_name"] = "cosine";
  return json;
}

ordered_json SpecialToken(int id, const char* content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

// Every special token once before the text or behind it.
ordered_json TemplateJson(const std::vector<std::pair<int, const char*>>& before,
                          const std::vector<std::pair<int, const char*>>& behind) {
  ordered_json single = ordered_json::array();
  ordered_json special = ordered_json::object();
  const auto add = [&](const auto& tokens) {
    for (const auto& [id, content] : tokens) {
      single.push_back({{"SpecialToken", {{"id", content}, {"type_id", 0}}}});
      special[content] = {{"id", content}, {"ids", {id}}, {"tokens", {content}}};
    }
  };
  add(before);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  add(behind);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", single},
          {"special_tokens", special}};
}

void AppendUtf8(int code_point, std::string* out) {
  if (code_point < 0x80) {
    *out += static_cast<char>(code_point);
  } else {
    *out += static_cast<char>(0xc0 | (code_point >> 6));
    *out += static_cast<char>(0x80 | (code_point & 0x3f));
  }
}

ordered_json ByteLevelTokenizerJson() {
  constexpr char kEnd[] = "<|endoftext|>";
  constexpr int kNumBytes = 256;
  // The byte-level alphabet: printable characters of Latin-1 stand for their own bytes, the other
  // bytes are numbered from 256 on.
  ordered_json vocab = ordered_json::object();
  int next = kNumBytes;
  for (int byte = 0; byte < kNumBytes; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
    std::string token;
    AppendUtf8(printable ? byte : next++, &token);
    vocab[token] = byte;
  }
  const ordered_json byte_level = {{"type", "ByteLevel"},
                                   {"add_prefix_space", false},
                                   {"trim_offsets", false},
                                   {"use_regex", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", {SpecialToken(kNumBytes, kEnd)}},
          {"normalizer", {{"type", "NFC"}}},
          {"pre_tokenizer", byte_level},
          {"post_processor", TemplateJson({}, {{kNumBytes, kEnd}})},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", ""},
            {"end_of_word_suffix", ""},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", ordered_json::array()}}}};
}

ordered_json CharacterWordPieceJson() {
  constexpr const char* kSpecial[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
  constexpr int kCls = 2, kSep = 3;
  ordered_json vocab = ordered_json::object();
  ordered_json added = ordered_json::array();
  for (const char* token : kSpecial) {
    added.push_back(SpecialToken(static_cast<int>(vocab.size()), token));
    vocab[token] = vocab.size();
  }
  for (int c = 0x21; c <= 0x7e; ++c) {
    if (c >= 'A' && c <= 'Z') continue;
    vocab[std::string(1, static_cast<char>(c))] = vocab.size();
  }
  for (int c = 0x21; c <= 0x7e; ++c) {
    if (std::islower(c) == 0 && std::isdigit(c) == 0) continue;
    vocab[absl::StrCat("##", std::string(1, static_cast<char>(c)))] = vocab.size();
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer",
           {{"type", "BertNormalizer"},
            {"clean_text", true},
            {"handle_chinese_chars", true},
            {"strip_accents", nullptr},
            {"lowercase", true}}},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"post_processor", TemplateJson({{kCls, "[CLS]"}}, {{kSep, "[SEP]"}})},
          {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
          {"model",
           {{"type", "WordPiece"},
            {"unk_token", "[UNK]"},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 100},
            {"vocab", vocab}}}};
}

}  // namespace

ordered_json ConfigJson(const ModelConfig& config, const std::string& dtype) {
  const bool bert = config.family == Family::kBert;
  ordered_json json = {{"architectures", {bert ? "BertModel" : "Qwen3ForCausalLM"}},
                       {"model_type", FamilyName(config.family)},
                       {"hidden_act", ActivationName(config.activation)},
                       {"hidden_size", config.hidden_size},
                       {"intermediate_size", config.intermediate_size},
                       {"num_hidden_layers", config.num_layers},
                       {"num_attention_heads", config.num_heads},
                       {"max_position_embeddings", config.max_positions},
                       {"vocab_size", config.vocab_size},
                       {"torch_dtype", dtype}};
  if (bert) {
    json.update({{"layer_norm_eps", Decimal(config.norm_eps)},
                 {"position_embedding_type", "absolute"},
                 {"type_vocab_size", config.type_vocab_size}});
  } else {
    // Without an lm_head a model is tied.
    json.update({{"attention_bias", false},
                 {"head_dim", config.head_dim},
                 {"num_key_value_heads", config.num_kv_heads},
                 {"rms_norm_eps", Decimal(config.norm_eps)},
                 {"rope_scaling", nullptr},
                 {"rope_theta", Decimal(config.rope_theta)},
                 {"sliding_window", nullptr},
                 {"use_sliding_window", false},
                 {"tie_word_embeddings", true}});
  }
  return json;
}

ordered_json PlainTokenizerJson(Family family) {
  return family == Family::kBert ? CharacterWordPieceJson() : ByteLevelTokenizerJson();
}

absl::Status WriteTextFile(const std::string& path, absl::string_view text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  if (file) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path, ": cannot be written: ", std::generic_category().message(errno)));
}

absl::Status WriteSentenceFiles(const ModelConfig& config, const std::string& model_dir) {
  std::error_code error;
  std::filesystem::create_directories(model_dir + "/1_Pooling", error);
  const std::pair<const char*, ordered_json> files[] = {
      {"modules.json", ModulesJson(config.normalizes)},
      {"1_Pooling/config.json", PoolingJson(config)},
      {"sentence_bert_config.json",
       {{"max_seq_length", config.default_max_tokens}, {"do_lower_case", false}}},
      {"config_sentence_transformers.json", PromptsJson(config)},
  };
  for (const auto& [name, json] : files) {
    const absl::Status status = WriteTextFile(absl::StrCat(model_dir, "/", name), json.dump(2));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace quiver
