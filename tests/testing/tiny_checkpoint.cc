#include "tests/testing/tiny_checkpoint.h"

#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/model/random_bits.h"
#include "gtest/gtest.h"
#include "kernels/cpu/stored_type.h"

namespace quiver {
namespace {

using nlohmann::json;

constexpr int kQwenSmallIds = 1454;
constexpr int kBertSmallIds = 1603;
constexpr int kSpareIds = 10;

uint64_t RandomBits(uint64_t seed, const std::string& name, uint64_t index) {
  return Mix(HashName(name) + seed * 0xd1342543de82ef95 + index * 0x9e3779b97f4a7c15);
}

void AppendValue(float value, DType dtype, std::string* bytes) {
  if (dtype == DType::kF32) {
    bytes->append(reinterpret_cast<const char*>(&value), sizeof(value));
    return;
  }
  const uint16_t half =
      dtype == DType::kF16 ? cpu::FloatToHalf(value) : cpu::FloatToBfloat16(value);
  bytes->append(reinterpret_cast<const char*>(&half), sizeof(half));
}

// Collects the tensors of a model. Names are those without prefix.
class TensorMaker {
 public:
  explicit TensorMaker(const TinyModel& model) : model_(model) {}

  // offset + width * RandomValue.
  void Add(const std::string& name, const std::vector<int64_t>& shape, float width,
           float offset = 0.0f) {
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    const char* prefix = model_.family == Family::kQwen3 ? "model." : "bert.";
    const bool prefixed = model_.key_prefix && name != "lm_head.weight";
    RawTensor tensor = {prefixed ? absl::StrCat(prefix, name) : name, model_.dtype, shape, ""};
    for (int64_t i = 0; i < count; ++i) {
      const float value = offset + width * RandomValue(model_.seed, name, static_cast<uint64_t>(i));
      AppendValue(value, model_.dtype, &tensor.bytes);
    }
    tensors_.push_back(std::move(tensor));
  }
  // Keeps the variance of what passes through it.
  void AddMatrix(const std::string& name, int64_t n, int64_t k) {
    Add(name, {n, k}, static_cast<float>(std::sqrt(3.0 / static_cast<double>(k))));
  }
  void AddLinear(const std::string& name, int64_t n, int64_t k) {
    AddMatrix(name + ".weight", n, k);
    Add(name + ".bias", {n}, 0.25f);
  }
  void AddRmsNorm(const std::string& name, int64_t n) { Add(name, {n}, 0.5f, 1.0f); }
  void AddLayerNorm(const std::string& name, int64_t n) {
    AddRmsNorm(name + ".weight", n);
    Add(name + ".bias", {n}, 0.25f);
  }

  std::vector<RawTensor> Take() { return std::move(tensors_); }

 private:
  const TinyModel& model_;
  std::vector<RawTensor> tensors_;
};

std::vector<RawTensor> Qwen3Tensors(const TinyModel& model) {
  TensorMaker maker(model);
  const int64_t hidden = model.hidden_size;
  const int64_t query = int64_t{model.num_heads} * model.head_dim;
  const int64_t key = int64_t{model.num_kv_heads} * model.head_dim;
  maker.Add("embed_tokens.weight", {model.vocab_size, hidden}, 1.0f);
  for (int i = 0; i < model.num_layers; ++i) {
    const std::string base = absl::StrCat("layers.", i, ".");
    maker.AddRmsNorm(base + "input_layernorm.weight", hidden);
    maker.AddMatrix(base + "self_attn.q_proj.weight", query, hidden);
    maker.AddMatrix(base + "self_attn.k_proj.weight", key, hidden);
    maker.AddMatrix(base + "self_attn.v_proj.weight", key, hidden);
    maker.AddMatrix(base + "self_attn.o_proj.weight", hidden, query);
    maker.AddRmsNorm(base + "self_attn.q_norm.weight", model.head_dim);
    maker.AddRmsNorm(base + "self_attn.k_norm.weight", model.head_dim);
    maker.AddRmsNorm(base + "post_attention_layernorm.weight", hidden);
    maker.AddMatrix(base + "mlp.gate_proj.weight", model.intermediate_size, hidden);
    maker.AddMatrix(base + "mlp.up_proj.weight", model.intermediate_size, hidden);
    maker.AddMatrix(base + "mlp.down_proj.weight", hidden, model.intermediate_size);
  }
  maker.AddRmsNorm("norm.weight", hidden);
  if (!model.tied) maker.AddMatrix("lm_head.weight", model.vocab_size, hidden);
  return maker.Take();
}

std::vector<RawTensor> BertTensors(const TinyModel& model) {
  TensorMaker maker(model);
  const int64_t hidden = model.hidden_size;
  maker.Add("embeddings.word_embeddings.weight", {model.vocab_size, hidden}, 1.0f);
  maker.Add("embeddings.position_embeddings.weight", {model.max_positions, hidden}, 0.5f);
  maker.Add("embeddings.token_type_embeddings.weight", {2, hidden}, 0.5f);
  maker.AddLayerNorm("embeddings.LayerNorm", hidden);
  for (int i = 0; i < model.num_layers; ++i) {
    const std::string base = absl::StrCat("encoder.layer.", i, ".");
    maker.AddLinear(base + "attention.self.query", hidden, hidden);
    maker.AddLinear(base + "attention.self.key", hidden, hidden);
    maker.AddLinear(base + "attention.self.value", hidden, hidden);
    maker.AddLinear(base + "attention.output.dense", hidden, hidden);
    maker.AddLayerNorm(base + "attention.output.LayerNorm", hidden);
    maker.AddLinear(base + "intermediate.dense", model.intermediate_size, hidden);
    maker.AddLinear(base + "output.dense", hidden, model.intermediate_size);
    maker.AddLayerNorm(base + "output.LayerNorm", hidden);
  }
  return maker.Take();
}

json ConfigJson(const TinyModel& model) {
  json config = {{"hidden_act", model.hidden_act},
                 {"hidden_size", model.hidden_size},
                 {"intermediate_size", model.intermediate_size},
                 {"num_hidden_layers", model.num_layers},
                 {"num_attention_heads", model.num_heads},
                 {"max_position_embeddings", model.max_positions},
                 {"vocab_size", model.vocab_size}};
  if (model.family == Family::kBert) {
    config.update({{"architectures", {"BertModel"}},
                   {"model_type", "bert"},
                   {"layer_norm_eps", 1e-12},
                   {"position_embedding_type", "absolute"},
                   {"type_vocab_size", 2}});
  } else {
    config.update({{"architectures", {"Qwen3ForCausalLM"}},
                   {"model_type", "qwen3"},
                   {"attention_bias", false},
                   {"head_dim", model.head_dim},
                   {"num_key_value_heads", model.num_kv_heads},
                   {"rms_norm_eps", 1e-6},
                   {"rope_scaling", nullptr},
                   {"rope_theta", 1000000},
                   {"sliding_window", nullptr},
                   {"use_sliding_window", false},
                   {"tie_word_embeddings", model.tied}});
  }
  return config;
}

json ModulesJson(bool normalize) {
  json modules = json::array();
  const auto add = [&](const std::string& path, const std::string& kind) {
    modules.push_back({{"idx", modules.size()},
                       {"name", absl::StrCat(modules.size())},
                       {"path", path},
                       {"type", "sentence_transformers.models." + kind}});
  };
  add("", "Transformer");
  add("1_Pooling", "Pooling");
  if (normalize) add("2_Normalize", "Normalize");
  return modules;
}

void WriteWeights(const std::vector<RawTensor>& tensors, int shards, const std::string& dir) {
  if (shards == 1) {
    WriteFile(dir + "/model.safetensors", SafetensorsBytes(tensors));
    return;
  }
  std::vector<std::vector<RawTensor>> files(shards);
  json weight_map;
  int64_t total = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int shard = static_cast<int>(i) % shards;
    files[shard].push_back(tensors[i]);
    weight_map[tensors[i].name] =
        absl::StrFormat("model-%05d-of-%05d.safetensors", shard + 1, shards);
    total += static_cast<int64_t>(tensors[i].bytes.size());
  }
  for (int i = 0; i < shards; ++i) {
    WriteFile(absl::StrFormat("%s/model-%05d-of-%05d.safetensors", dir, i + 1, shards),
              SafetensorsBytes(files[i]));
  }
  const json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  WriteFile(dir + "/model.safetensors.index.json", index.dump(2));
}

}  // namespace

TinyModel TinyBert() {
  TinyModel model;
  model.family = Family::kBert;
  model.num_kv_heads = 4;
  model.head_dim = 16;
  model.max_positions = 512;
  model.hidden_act = "gelu";
  model.pooling = "mean_tokens";
  return model;
}

TinyModel TinyModelFromJson(const json& fields) {
  TinyModel model = fields.value("family", "qwen3") == "bert" ? TinyBert() : TinyModel();
  model.hidden_size = fields.value("hidden_size", model.hidden_size);
  model.intermediate_size = fields.value("intermediate_size", model.intermediate_size);
  model.num_layers = fields.value("num_layers", model.num_layers);
  model.num_heads = fields.value("num_heads", model.num_heads);
  model.num_kv_heads = fields.value("num_kv_heads", model.num_kv_heads);
  model.head_dim = fields.value("head_dim", model.head_dim);
  model.vocab_size = fields.value("vocab_size", model.vocab_size);
  model.max_positions = fields.value("max_positions", model.max_positions);
  model.hidden_act = fields.value("hidden_act", model.hidden_act);
  const std::string dtype = fields.value("dtype", "F32");
  model.dtype = dtype == "F16" ? DType::kF16 : dtype == "BF16" ? DType::kBF16 : DType::kF32;
  model.key_prefix = fields.value("key_prefix", model.key_prefix);
  model.tied = fields.value("tied", model.tied);
  model.shards = fields.value("shards", model.shards);
  model.pooling = fields.value("pooling", model.pooling);
  model.seed = fields.value("seed", model.seed);
  return model;
}

float RandomValue(uint64_t seed, const std::string& name, uint64_t index) {
  const auto bits = static_cast<int32_t>(RandomBits(seed, name, index) >> 40);
  return static_cast<float>(bits - (1 << 23)) / static_cast<float>(1 << 23);
}

std::vector<TokenId> RandomIds(uint64_t seed, int number, int count, int vocab_size) {
  std::vector<TokenId> ids(count);
  const std::string name = absl::StrCat("ids ", number);
  for (int i = 0; i < count; ++i) {
    ids[i] = static_cast<TokenId>((RandomBits(seed, name, i) >> 32) % vocab_size);
  }
  return ids;
}

std::string SafetensorsBytes(const std::vector<RawTensor>& tensors) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  size_t offset = 0;
  for (const RawTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", DTypeName(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.bytes.size()}}};
    offset += tensor.bytes.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(text.size() >> (8 * i)));
  bytes += text;
  for (const RawTensor& tensor : tensors) bytes += tensor.bytes;
  return bytes;
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

absl::Status WriteTinyModel(const TinyModel& wanted, const std::string& dir,
                            const std::string& fixtures) {
  TinyModel model = wanted;
  const bool bert = model.family == Family::kBert;
  if (model.vocab_size == 0) model.vocab_size = (bert ? kBertSmallIds : kQwenSmallIds) + kSpareIds;

  const std::string tokenizer = ReadFile(absl::StrCat(
      fixtures, "/tokenizers/", bert ? "bert-small" : "qwen-small", "/tokenizer.json"));
  if (tokenizer.empty()) {
    return absl::NotFoundError(absl::StrCat(fixtures, " has no tokenizers"));
  }
  std::error_code error;
  std::filesystem::create_directories(dir + "/1_Pooling", error);
  if (error) return absl::FailedPreconditionError(absl::StrCat(dir, ": ", error.message()));

  WriteFile(dir + "/tokenizer.json", tokenizer);
  WriteFile(dir + "/config.json", ConfigJson(model).dump(2));
  WriteFile(dir + "/modules.json", ModulesJson(model.normalize).dump(2));
  json pooling = {{"word_embedding_dimension", model.hidden_size},
                  {"pooling_mode_cls_token", false},
                  {"pooling_mode_mean_tokens", false},
                  {"pooling_mode_lasttoken", false}};
  pooling["pooling_mode_" + model.pooling] = true;
  WriteFile(dir + "/1_Pooling/config.json", pooling.dump(2));
  if (!bert) {
    const json prompts = {
        {"query",
         "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
         "Query:"},
        {"document", ""}};
    const json sentence = {
        {"prompts", prompts}, {"default_prompt_name", nullptr}, {"similarity_fn_name", "cosine"}};
    WriteFile(dir + "/config_sentence_transformers.json", sentence.dump(2));
  }
  if (model.max_seq_length > 0) {
    const json limits = {{"max_seq_length", model.max_seq_length}, {"do_lower_case", false}};
    WriteFile(dir + "/sentence_bert_config.json", limits.dump(2));
  }
  WriteWeights(bert ? BertTensors(model) : Qwen3Tensors(model), model.shards, dir);
  return absl::OkStatus();
}

std::string TestDir(const std::string& name) {
  // Removed when the test program ends.
  struct Root {
    Root() : path(absl::StrCat(testing::TempDir(), "/quiver-test-", getpid())) {}
    ~Root() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
    std::string path;
    int made = 0;
  };
  static Root root;
  const std::string dir = absl::StrCat(root.path, "/", root.made++, "-", name);
  std::filesystem::create_directories(dir);
  return dir;
}

std::string MakeTinyModelDir(const TinyModel& model) {
  const std::string dir = TestDir("tiny-model");
  const absl::Status status = WriteTinyModel(model, dir);
  EXPECT_TRUE(status.ok()) << status;
  return dir;
}

}  // namespace quiver
