// Small random models as Hugging Face directories, for tests.
#ifndef QUIVER_TESTS_TESTING_TINY_CHECKPOINT_H_
#define QUIVER_TESTS_TESTING_TINY_CHECKPOINT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/types.h"
#include "nlohmann/json.hpp"

namespace quiver {

struct TinyModel {
  Family family = Family::kQwen3;
  int hidden_size = 64;
  int intermediate_size = 96;
  int num_layers = 2;
  int num_heads = 4;
  // Qwen3 only, as head_dim: heads * head_dim need not be hidden_size.
  int num_kv_heads = 2;
  int head_dim = 32;
  // 0 for the cut tokenizer's ids and a few more, as real checkpoints have them.
  int vocab_size = 0;
  int max_positions = 4096;
  // sentence_bert_config.json's; 0 to leave the file out.
  int max_seq_length = 0;
  std::string hidden_act = "silu";
  // kF32, kF16 or kBF16.
  DType dtype = DType::kF32;
  // Whether names begin with "model." or "bert.".
  bool key_prefix = true;
  // An untied Qwen3 has an lm_head.weight, which nothing reads.
  bool tied = true;
  // Files that the tensors are spread over.
  int shards = 1;
  // pooling_mode_... of 1_Pooling/config.json: "lasttoken", "mean_tokens", "cls_token".
  std::string pooling = "lasttoken";
  bool normalize = true;
  uint64_t seed = 1;
};

// A BERT of the same size: mean pooling, gelu, 4 heads of 16.
TinyModel TinyBert();

// The fields by name, absent ones being those of TinyModel or TinyBert ("family": "bert").
TinyModel TinyModelFromJson(const nlohmann::json& json);

// Writes config.json, safetensors, modules.json, 1_Pooling/config.json,
// config_sentence_transformers.json and tokenizer.json (the family's cut tokenizer under
// `fixtures`) to `dir`, which is made if need be.
absl::Status WriteTinyModel(const TinyModel& model, const std::string& dir,
                            const std::string& fixtures = "tests/fixtures");

// A new directory of this test program's own; gone when the program ends.
std::string TestDir(const std::string& name);

// WriteTinyModel to a TestDir; an error fails the test.
std::string MakeTinyModelDir(const TinyModel& model);

// Tensors as a checkpoint stores them.
struct RawTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::string bytes;
};
// A safetensors file's bytes.
std::string SafetensorsBytes(const std::vector<RawTensor>& tensors);

void WriteFile(const std::string& path, const std::string& bytes);
std::string ReadFile(const std::string& path);

// Element `index` of the stream `name`: uniform in [-1, 1), with 24 random bits. The golden
// vectors' script computes the same.
float RandomValue(uint64_t seed, const std::string& name, uint64_t index);
// `count` ids below `vocab_size`, from the stream "ids <number>".
std::vector<TokenId> RandomIds(uint64_t seed, int number, int count, int vocab_size);

}  // namespace quiver

#endif  // QUIVER_TESTS_TESTING_TINY_CHECKPOINT_H_
