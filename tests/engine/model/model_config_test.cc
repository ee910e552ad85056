#include "engine/model/model_config.h"

#include <filesystem>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

// A tiny model's directory whose settings a test bends.
class Directory {
 public:
  explicit Directory(const TinyModel& model) : path_(MakeTinyModelDir(model)) {}

  Directory& Set(const std::string& file, const std::string& key, const json& value) {
    json object = Exists(file) ? json::parse(ReadFile(path_ + "/" + file)) : json::object();
    object[key] = value;
    return Write(file, object.dump());
  }
  Directory& Erase(const std::string& file, const std::string& key) {
    json object = json::parse(ReadFile(path_ + "/" + file));
    object.erase(key);
    return Write(file, object.dump());
  }
  Directory& Write(const std::string& file, const std::string& text) {
    WriteFile(path_ + "/" + file, text);
    return *this;
  }
  Directory& Remove(const std::string& file) {
    std::filesystem::remove(path_ + "/" + file);
    return *this;
  }
  bool Exists(const std::string& file) const { return std::filesystem::exists(path_ + "/" + file); }

  std::string Text(const std::string& file) const { return ReadFile(path_ + "/" + file); }

  absl::StatusOr<ModelConfig> Load() const { return LoadModelConfig(path_); }
  ModelConfig Config() const {
    absl::StatusOr<ModelConfig> config = Load();
    EXPECT_TRUE(config.ok()) << config.status();
    return config.ok() ? *config : ModelConfig();
  }
  std::string Error() const { return Load().status().ToString(); }

 private:
  std::string path_;
};

constexpr char kConfig[] = "config.json";
constexpr char kModules[] = "modules.json";
constexpr char kPooling[] = "1_Pooling/config.json";
constexpr char kPrompts[] = "config_sentence_transformers.json";
constexpr char kLimits[] = "sentence_bert_config.json";
constexpr char kTokenizer[] = "tokenizer_config.json";

Directory Qwen3() { return Directory(TinyModel()); }
Directory Bert() { return Directory(TinyBert()); }

TEST(ModelConfigTest, AQwen3DirectoryIsReadInFull) {
  const ModelConfig config = Qwen3().Config();
  EXPECT_EQ(config.family, Family::kQwen3);
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.intermediate_size, 96);
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.num_heads, 4);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.vocab_size, 1464);
  EXPECT_EQ(config.max_positions, 4096);
  EXPECT_EQ(config.default_max_tokens, 4096);
  EXPECT_FLOAT_EQ(config.norm_eps, 1e-6f);
  EXPECT_FLOAT_EQ(config.rope_theta, 1e6f);
  EXPECT_EQ(config.activation, Activation::kSilu);
  EXPECT_EQ(config.pooling, Pooling::kLastToken);
  EXPECT_TRUE(config.normalizes);
  EXPECT_EQ(config.min_dimensions, 32);
  EXPECT_THAT(config.prompts,
              UnorderedElementsAre(
                  Pair("query",
                       "Instruct: Given a web search query, retrieve relevant passages that "
                       "answer the query\nQuery:"),
                  Pair("document", "")));
  EXPECT_EQ(config.default_prompt_name, "");
  EXPECT_EQ(config.instruction_template, "Instruct: {instruction}\nQuery:");
  EXPECT_EQ(config.quantization, "none");
}

TEST(ModelConfigTest, ABertDirectoryIsReadInFull) {
  Directory dir = Bert();
  const ModelConfig config = dir.Set(kLimits, "max_seq_length", 256).Config();
  EXPECT_EQ(config.family, Family::kBert);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.num_kv_heads, 4);
  EXPECT_EQ(config.type_vocab_size, 2);
  EXPECT_EQ(config.activation, Activation::kGelu);
  EXPECT_EQ(config.max_positions, 512);
  EXPECT_EQ(config.default_max_tokens, 256);
  EXPECT_EQ(config.pooling, Pooling::kMean);
  EXPECT_EQ(config.min_dimensions, config.hidden_size);
  EXPECT_TRUE(config.prompts.empty());
  EXPECT_EQ(config.instruction_template, "");
}

TEST(ModelConfigTest, ABareQwen3DirectoryHasTheDefaultsOfQwen3Embedding) {
  const ModelConfig config = Qwen3().Remove(kModules).Remove(kPooling).Remove(kPrompts).Config();
  EXPECT_EQ(config.pooling, Pooling::kLastToken);
  EXPECT_TRUE(config.normalizes);
  EXPECT_EQ(config.min_dimensions, 32);
}

TEST(ModelConfigTest, ABareBertDirectoryIsMeanPooledAndNotNormalized) {
  const ModelConfig config = Bert().Remove(kModules).Remove(kPooling).Config();
  EXPECT_EQ(config.pooling, Pooling::kMean);
  EXPECT_FALSE(config.normalizes);
}

TEST(ModelConfigTest, EverySpellingOfAPoolingModeIsUnderstood) {
  const auto with = [](const json& pooling) {
    return Bert().Write(kPooling, pooling.dump()).Config().pooling;
  };
  EXPECT_EQ(with({{"pooling_mode_cls_token", true}}), Pooling::kCls);
  EXPECT_EQ(with({{"pooling_mode_mean_tokens", true}}), Pooling::kMean);
  EXPECT_EQ(with({{"pooling_mode_lasttoken", true}}), Pooling::kLastToken);
  EXPECT_EQ(with({{"pooling_mode", "cls"}, {"embedding_dimension", 64}}), Pooling::kCls);
  EXPECT_EQ(with({{"pooling_mode", "mean"}}), Pooling::kMean);
  EXPECT_EQ(with({{"pooling_mode", "lasttoken"}}), Pooling::kLastToken);
}

TEST(ModelConfigTest, OtherPoolingIsRefusedByName) {
  const auto with = [](const json& pooling) {
    return Bert().Write(kPooling, pooling.dump()).Error();
  };
  EXPECT_THAT(
      with({{"pooling_mode_max_tokens", true}}),
      AllOf(HasSubstr("UNIMPLEMENTED"), HasSubstr("1_Pooling/config.json"), HasSubstr("max")));
  EXPECT_THAT(with({{"pooling_mode_mean_sqrt_len_tokens", true}}),
              HasSubstr("mean_sqrt_len_tokens"));
  EXPECT_THAT(with({{"pooling_mode_weightedmean_tokens", true}}), HasSubstr("weightedmean"));
  EXPECT_THAT(with({{"pooling_mode", "attention"}}), HasSubstr("attention"));
  EXPECT_THAT(with({{"pooling_mode_cls_token", true}, {"pooling_mode_mean_tokens", true}}),
              AllOf(HasSubstr("UNIMPLEMENTED"), HasSubstr("cls, mean")));
  EXPECT_THAT(with({{"pooling_mode_cls_token", false}}),
              AllOf(HasSubstr("INVALID_ARGUMENT"), HasSubstr("none")));
  EXPECT_THAT(with({{"pooling_mode_mean_tokens", "yes"}}),
              AllOf(HasSubstr("true or false"), HasSubstr("\"yes\"")));
  EXPECT_THAT(with({{"pooling_mode_mean_tokens", true}, {"word_embedding_dimension", 65}}),
              AllOf(HasSubstr("word_embedding_dimension"), HasSubstr("64"), HasSubstr("65")));
  EXPECT_THAT(with({{"pooling_mode_mean_tokens", true}, {"include_prompt", false}}),
              AllOf(HasSubstr("UNIMPLEMENTED"), HasSubstr("include_prompt")));
}

TEST(ModelConfigTest, TheShorterOfThePositionsAndTheTokenizersLimitHolds) {
  EXPECT_EQ(Qwen3().Set(kTokenizer, "model_max_length", 100).Config().default_max_tokens, 100);
  EXPECT_EQ(Qwen3().Set(kTokenizer, "model_max_length", 1e30).Config().default_max_tokens, 4096);
  EXPECT_EQ(Qwen3()
                .Set(kTokenizer, "model_max_length", 100)
                .Set(kLimits, "max_seq_length", 200)
                .Config()
                .default_max_tokens,
            200);
  EXPECT_EQ(Qwen3().Set(kConfig, "max_position_embeddings", 40960).Config().default_max_tokens,
            32768);
  EXPECT_THAT(Qwen3().Set(kLimits, "max_seq_length", 4097).Error(),
              AllOf(HasSubstr("max_seq_length"), HasSubstr("4096"), HasSubstr("4097")));
  EXPECT_THAT(Qwen3().Set(kTokenizer, "model_max_length", "long").Error(),
              HasSubstr("model_max_length"));
}

TEST(ModelConfigTest, PromptsKeepTheirOrderAndTheDefaultMustBeOneOfThem) {
  Directory dir = Qwen3();
  dir.Write(kPrompts, R"({"prompts": {"z": "Z: ", "a": "A: "}, "default_prompt_name": "a"})");
  const ModelConfig config = dir.Config();
  EXPECT_THAT(config.prompts, ElementsAre(Pair("z", "Z: "), Pair("a", "A: ")));
  EXPECT_EQ(config.default_prompt_name, "a");
  EXPECT_THAT(dir.Set(kPrompts, "default_prompt_name", "b").Error(),
              AllOf(HasSubstr("default_prompt_name"), HasSubstr("\"b\"")));
  EXPECT_THAT(dir.Write(kPrompts, R"({"prompts": {"q": 5}})").Error(),
              AllOf(HasSubstr("prompts.q"), HasSubstr("a string"), HasSubstr("5")));
}

TEST(ModelConfigTest, NewerSpellingsOfTheRotaryBaseAreUnderstood) {
  Directory dir = Qwen3();
  dir.Erase(kConfig, "rope_theta")
      .Set(kConfig, "rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e5}});
  EXPECT_FLOAT_EQ(dir.Config().rope_theta, 5e5f);
}

TEST(ModelConfigTest, SlidingWindowsThatNoInputExceedsAreIgnored) {
  EXPECT_TRUE(Qwen3().Set(kConfig, "sliding_window", 128).Load().ok());
  EXPECT_TRUE(Qwen3()
                  .Set(kConfig, "sliding_window", 4096)
                  .Set(kConfig, "use_sliding_window", true)
                  .Set(kConfig, "max_window_layers", 0)
                  .Load()
                  .ok());
  EXPECT_TRUE(Qwen3()
                  .Set(kConfig, "sliding_window", 128)
                  .Set(kConfig, "use_sliding_window", true)
                  .Set(kConfig, "max_window_layers", 2)
                  .Load()
                  .ok());
  EXPECT_THAT(Qwen3()
                  .Set(kConfig, "sliding_window", 128)
                  .Set(kConfig, "use_sliding_window", true)
                  .Set(kConfig, "max_window_layers", 1)
                  .Error(),
              AllOf(HasSubstr("UNIMPLEMENTED"), HasSubstr("sliding_window"), HasSubstr("128")));
  EXPECT_THAT(Qwen3()
                  .Set(kConfig, "sliding_window", 128)
                  .Set(kConfig, "layer_types", {"full_attention", "sliding_attention"})
                  .Error(),
              HasSubstr("sliding_window"));
}

struct Refusal {
  const char* file;
  const char* key;
  json value;
  const char* code;
};

TEST(ModelConfigTest, WhatWouldChangeAVectorIsHonouredOrRefusedByName) {
  const std::vector<Refusal> qwen3 = {
      {kConfig, "model_type", "llama", "UNIMPLEMENTED"},
      {kConfig, "model_type", 3, "INVALID_ARGUMENT"},
      {kConfig, "attention_bias", true, "UNIMPLEMENTED"},
      {kConfig, "is_causal", false, "UNIMPLEMENTED"},
      {kConfig, "use_bidirectional_attention", true, "UNIMPLEMENTED"},
      {kConfig, "hidden_act", "quick_gelu", "UNIMPLEMENTED"},
      {kConfig, "hidden_size", 0, "INVALID_ARGUMENT"},
      {kConfig, "hidden_size", -64, "INVALID_ARGUMENT"},
      {kConfig, "hidden_size", 1e9, "INVALID_ARGUMENT"},
      {kConfig, "hidden_size", "64", "INVALID_ARGUMENT"},
      {kConfig, "num_hidden_layers", 18446744073709551615u, "INVALID_ARGUMENT"},
      {kConfig, "num_attention_heads", nullptr, "INVALID_ARGUMENT"},
      {kConfig, "num_key_value_heads", 3, "INVALID_ARGUMENT"},
      {kConfig, "head_dim", 33, "INVALID_ARGUMENT"},
      {kConfig, "rms_norm_eps", -1e-6, "INVALID_ARGUMENT"},
      {kConfig, "rope_theta", 0, "INVALID_ARGUMENT"},
      {kConfig, "rope_scaling", "yarn", "INVALID_ARGUMENT"},
      {kConfig, "layer_types", json::array({"full_attention"}), "INVALID_ARGUMENT"},
      {kConfig, "layer_types", json::array({"full_attention", "linear_attention"}),
       "UNIMPLEMENTED"},
      {kConfig, "quantization_config", json::array({1}), "INVALID_ARGUMENT"},
      {kLimits, "do_lower_case", true, "UNIMPLEMENTED"},
  };
  for (const Refusal& refusal : qwen3) {
    EXPECT_THAT(Qwen3().Set(refusal.file, refusal.key, refusal.value).Error(),
                AllOf(HasSubstr(refusal.code), HasSubstr(refusal.file), HasSubstr(refusal.key)))
        << refusal.value;
  }
  EXPECT_THAT(
      Qwen3().Set(kConfig, "rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}).Error(),
      AllOf(HasSubstr("UNIMPLEMENTED"), HasSubstr("rope_scaling"), HasSubstr("yarn")));
  const std::vector<Refusal> bert = {
      {kConfig, "position_embedding_type", "relative_key", "UNIMPLEMENTED"},
      {kConfig, "is_decoder", true, "UNIMPLEMENTED"},
      {kConfig, "hidden_act", "mish", "UNIMPLEMENTED"},
      {kConfig, "num_attention_heads", 5, "INVALID_ARGUMENT"},
      {kConfig, "layer_norm_eps", "tiny", "INVALID_ARGUMENT"},
  };
  for (const Refusal& refusal : bert) {
    EXPECT_THAT(Bert().Set(refusal.file, refusal.key, refusal.value).Error(),
                AllOf(HasSubstr(refusal.code), HasSubstr(refusal.file), HasSubstr(refusal.key)))
        << refusal.value;
  }
}

TEST(ModelConfigTest, AMissingKeyIsNamed) {
  EXPECT_THAT(Qwen3().Erase(kConfig, "vocab_size").Error(),
              AllOf(HasSubstr("INVALID_ARGUMENT"), HasSubstr("config.json"),
                    HasSubstr("vocab_size is missing")));
}

TEST(ModelConfigTest, AMissingFileIsNamed) {
  EXPECT_THAT(Qwen3().Remove(kConfig).Error(),
              AllOf(HasSubstr("NOT_FOUND"), HasSubstr("config.json")));
  EXPECT_THAT(Qwen3().Remove(kPooling).Error(),
              AllOf(HasSubstr("NOT_FOUND"), HasSubstr("1_Pooling/config.json")));
}

TEST(ModelConfigTest, ModulesQuiverDoesNotRunAreRefusedByName) {
  const auto with = [](const std::vector<std::pair<std::string, std::string>>& modules) {
    json list = json::array();
    for (const auto& [path, type] : modules) list.push_back({{"path", path}, {"type", type}});
    return Bert().Write(kModules, list.dump()).Error();
  };
  const std::string base = "sentence_transformers.models.";
  EXPECT_EQ(with({{"", base + "Transformer"}, {"1_Pooling", base + "Pooling"}}), "OK");
  EXPECT_THAT(with({{"", base + "Transformer"},
                    {"1_Pooling", base + "Pooling"},
                    {"2_Dense", base + "Dense"}}),
              AllOf(HasSubstr("UNIMPLEMENTED"), HasSubstr("modules.json"), HasSubstr("Dense")));
  EXPECT_THAT(with({{"", "custom.Transformer"}}), HasSubstr("custom.Transformer"));
  EXPECT_THAT(with({{"", base + "Transformer"}}), HasSubstr("Transformer, Pooling"));
  EXPECT_THAT(with({}), HasSubstr("none"));
  EXPECT_THAT(with({{"0_Transformer", base + "Transformer"}}), HasSubstr("0_Transformer"));
  EXPECT_THAT(with({{"", base + "Transformer"}, {"../elsewhere", base + "Pooling"}}),
              AllOf(HasSubstr("INVALID_ARGUMENT"), HasSubstr("../elsewhere")));
  EXPECT_THAT(Bert().Write(kModules, "{}").Error(), HasSubstr("array"));
  EXPECT_THAT(Bert().Write(kModules, "[7]").Error(), HasSubstr("module 0"));
}

TEST(ModelConfigTest, FilesThatAreNoJsonObjectAreNamed) {
  EXPECT_THAT(Qwen3().Write(kConfig, "{\"a\": ").Error(),
              AllOf(HasSubstr("INVALID_ARGUMENT"), HasSubstr("config.json")));
  EXPECT_THAT(Qwen3().Write(kConfig, "[1]").Error(), HasSubstr("object"));
  EXPECT_THAT(Qwen3().Write(kConfig, "").Error(), HasSubstr("config.json"));
  EXPECT_THAT(Qwen3().Write(kConfig, "\xff\xfe").Error(), HasSubstr("config.json"));
  EXPECT_THAT(Qwen3().Write(kConfig, std::string(1 << 20, '[')).Error(), HasSubstr("config.json"));
  const std::string deep = "{\"a\":" + std::string(1 << 20, '[') + std::string(1 << 20, ']') + "}";
  EXPECT_THAT(Qwen3().Write(kConfig, deep).Error(), HasSubstr("deeper"));
  EXPECT_THAT(Qwen3().Write(kConfig, std::string(5 << 20, ' ')).Error(), HasSubstr("bytes"));
}

// A value of another kind or size in place of one that is there.
json Mutant(std::mt19937* rng) {
  const std::vector<json> values = {nullptr,
                                    true,
                                    -1,
                                    0,
                                    3,
                                    1e308,
                                    -1e308,
                                    INT64_MIN,
                                    UINT64_MAX,
                                    "",
                                    "\xc3\xa9",
                                    std::string(1000, 'x'),
                                    json::array(),
                                    json::array({1, "a", nullptr}),
                                    json::object(),
                                    {{"a", {{"b", 1}}}}};
  return values[(*rng)() % values.size()];
}

// Replaces one value, anywhere in the tree.
void Mutate(json* node, std::mt19937* rng) {
  while ((node->is_object() || node->is_array()) && !node->empty() && (*rng)() % 8 != 0) {
    auto it = node->begin();
    std::advance(it, (*rng)() % node->size());
    node = &*it;
  }
  *node = Mutant(rng);
}

TEST(ModelConfigTest, MutatedFilesNeverCrashAndErrorsNameAFile) {
  std::mt19937 rng(11);
  for (const TinyModel& model : {TinyModel(), TinyBert()}) {
    Directory dir(model);
    dir.Set(kLimits, "max_seq_length", 256).Set(kTokenizer, "model_max_length", 512);
    dir.Set(kPrompts, "default_prompt_name", nullptr);
    const std::vector<std::string> files = {kConfig,  kModules, kPooling,
                                            kPrompts, kLimits,  kTokenizer};
    for (int i = 0; i < 3000; ++i) {
      const std::string& file = files[rng() % files.size()];
      const std::string original = dir.Text(file);
      std::string text;
      if (i % 2 == 0) {
        json value = json::parse(original);
        Mutate(&value, &rng);
        text = value.dump();
      } else {
        text = original;
        for (int flips = 1 + static_cast<int>(rng() % 4); flips > 0; --flips) {
          text[rng() % text.size()] = static_cast<char>(rng());
        }
        if (rng() % 4 == 0) text.resize(rng() % text.size());
      }
      const absl::Status status = dir.Write(file, text).Load().status();
      if (!status.ok()) {
        EXPECT_THAT(std::string(status.message()), HasSubstr("json")) << text;
        EXPECT_THAT(status.code(),
                    testing::AnyOf(absl::StatusCode::kInvalidArgument,
                                   absl::StatusCode::kUnimplemented, absl::StatusCode::kNotFound))
            << status;
      }
      dir.Write(file, original);
    }
  }
}

}  // namespace
}  // namespace quiver
