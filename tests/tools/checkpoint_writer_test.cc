#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "engine/model/model_shapes.h"
#include "engine/model/random_weights.h"
#include "engine/model_files.h"
#include "engine/run/cpu_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/run_backend.h"
#include "tests/testing/tiny_checkpoint.h"
#include "tools/quiver/checkpoint_files.h"
#include "tools/quiver/random_checkpoint.h"

namespace quiver {
namespace {

using testing::HasSubstr;

// A decoder small enough for tests, as a config.json.
std::string TinyConfigFile() {
  ModelConfig config = *NamedModelShape("qwen3-embedding-0.6b");
  config.hidden_size = 96;
  config.intermediate_size = 160;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 32;
  config.vocab_size = 300;
  config.max_positions = 4096;
  const std::string path = TestDir("config") + "/shape.json";
  WriteFile(path, ConfigJson(config, "bfloat16").dump());
  return path;
}

RandomCheckpointOptions TinyOptions() {
  RandomCheckpointOptions options;
  options.config_file = TinyConfigFile();
  options.output_dir = TestDir("checkpoint");
  options.num_threads = 2;
  return options;
}

RandomCheckpoint Make(const RandomCheckpointOptions& options) {
  const absl::StatusOr<RandomCheckpoint> made =
      WriteRandomCheckpoint(options, [](int64_t, int64_t) {});
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : RandomCheckpoint();
}

// Every file under `dir` by its path in it.
std::map<std::string, std::string> Files(const std::string& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(dir)) {
    if (!entry.is_regular_file()) continue;
    files[std::filesystem::relative(entry.path(), dir).string()] = ReadFile(entry.path().string());
  }
  return files;
}

std::vector<std::vector<float>> Vectors(const ModelFiles& files,
                                        const std::vector<std::vector<TokenId>>& ids) {
  const auto backend = CreateCpuBackend(files.info.config, files.weights, {.num_threads = 2});
  EXPECT_TRUE(backend.ok()) << backend.status();
  return RunTogether(backend->get(), ids, files.info.config.hidden_size);
}

TEST(CheckpointWriterTest, LoadsAndEmbedsInEveryType) {
  std::vector<std::vector<std::vector<float>>> found;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    RandomCheckpointOptions options = TinyOptions();
    options.dtype = dtype;
    const RandomCheckpoint made = Make(options);
    const absl::StatusOr<ModelFiles> files = OpenModelFiles(options.output_dir, "", QuantizationChoice::kAuto);
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(files->info.num_parameters, made.parameters);
    EXPECT_EQ(files->info.weight_bytes, made.weight_bytes);
    std::vector<TokenId> ids;
    ASSERT_TRUE(files->tokenizer->Encode("plain text", &ids).ok());
    EXPECT_EQ(ids.size(), 10u);
    found.push_back(Vectors(*files, {ids, RandomIds(1, 1, 200, 300)}));
  }
  for (const auto& vectors : found) {
    EXPECT_LT(std::abs(Cosine(vectors[0], vectors[1])), 0.5);
    for (size_t i = 0; i < vectors.size(); ++i) EXPECT_GT(Cosine(vectors[i], found[0][i]), 0.999);
  }
}

TEST(CheckpointWriterTest, BertLoadsAndEmbeds) {
  RandomCheckpointOptions options = TinyOptions();
  options.config_file.clear();
  options.shape = "all-minilm-l6-v2";
  options.num_layers = 1;
  options.vocab_size = 500;
  Make(options);
  const absl::StatusOr<ModelFiles> files = OpenModelFiles(options.output_dir, "", QuantizationChoice::kAuto);
  ASSERT_TRUE(files.ok()) << files.status();
  ModelConfig expected = *NamedModelShape(options.shape);
  expected.num_layers = 1;
  expected.vocab_size = 500;
  EXPECT_EQ(files->info.config, expected);
  const auto vectors = Vectors(*files, {{1, 2, 3}, {4, 5}});
  EXPECT_LT(std::abs(Cosine(vectors[0], vectors[1])), 0.9);
}

TEST(CheckpointWriterTest, TheSameSeedGivesTheSameBytesOnAnyNumberOfThreads) {
  RandomCheckpointOptions options = TinyOptions();
  Make(options);
  RandomCheckpointOptions again = TinyOptions();
  again.num_threads = 1;
  Make(again);
  EXPECT_EQ(Files(options.output_dir), Files(again.output_dir));
  RandomCheckpointOptions other = TinyOptions();
  other.seed = 1;
  Make(other);
  EXPECT_NE(Files(options.output_dir), Files(other.output_dir));
}

TEST(CheckpointWriterTest, ShardsHoldTheSameTensorsAsOneFile) {
  RandomCheckpointOptions whole = TinyOptions();
  EXPECT_EQ(Make(whole).num_files, 1);
  RandomCheckpointOptions cut = TinyOptions();
  cut.shard_bytes = 100'000;
  const int num_files = Make(cut).num_files;
  EXPECT_GT(num_files, 3);
  for (const auto& [name, bytes] : Files(cut.output_dir)) {
    if (!absl::StrContains(name, "-of-")) continue;
    EXPECT_LT(bytes.size(), 110'000u) << name;
  }
  const auto a = Weights::Open(whole.output_dir);
  const auto b = Weights::Open(cut.output_dir);
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  EXPECT_EQ((*a)->Fingerprint(1), (*b)->Fingerprint(1));
}

TEST(CheckpointWriterTest, WeightsInMemoryAreThoseOfTheFiles) {
  RandomCheckpointOptions options = TinyOptions();
  Make(options);
  const absl::StatusOr<ModelFiles> files = OpenModelFiles(options.output_dir, "", QuantizationChoice::kAuto);
  ASSERT_TRUE(files.ok()) << files.status();
  const auto weights = RandomWeights(files->info.config, options.dtype, options.seed, nullptr);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ((*weights)->Fingerprint(1), files->weights->Fingerprint(1));
}

TEST(CheckpointWriterTest, ValuesHaveTheDeviationThatKeepsActivationsInRange) {
  const ModelConfig config = *NamedModelShape("qwen3-embedding-4b");
  const auto random = RandomTensors::Create(config, DType::kF32, 3);
  ASSERT_TRUE(random.ok());
  const auto deviation = [&](const std::string& name) {
    for (const ModelTensor& tensor : ModelTensors(config)) {
      if (tensor.name != name) continue;
      std::vector<float> values(300'000);
      random->Fill(tensor, 12345, static_cast<int64_t>(values.size()),
                   reinterpret_cast<std::byte*>(values.data()), nullptr);
      double sum = 0, squares = 0;
      for (const float value : values) {
        sum += value;
        squares += double{value} * value;
      }
      EXPECT_NEAR(sum / 300'000, 0, 0.01 * std::sqrt(squares / 300'000));
      return std::sqrt(squares / 300'000);
    }
    return 0.0;
  };
  EXPECT_NEAR(deviation("layers.7.mlp.up_proj.weight"), 1 / std::sqrt(2560), 1e-4);
  EXPECT_NEAR(deviation("layers.35.mlp.down_proj.weight"), 1 / std::sqrt(9728 * 72), 1e-5);
  EXPECT_NEAR(deviation("embed_tokens.weight"), 1, 0.01);
}

TEST(CheckpointWriterTest, ADirectoryWithFilesIsLeftAlone) {
  RandomCheckpointOptions options = TinyOptions();
  WriteFile(options.output_dir + "/mine", "kept");
  const absl::Status status = WriteRandomCheckpoint(options, [](int64_t, int64_t) {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Files(options.output_dir), testing::ElementsAre(std::pair("mine", "kept")));
}

TEST(CheckpointWriterTest, ATokenizerWithMoreIdsThanTheVocabularyIsRefused) {
  RandomCheckpointOptions options = TinyOptions();
  options.vocab_size = 200;
  const absl::Status status = WriteRandomCheckpoint(options, [](int64_t, int64_t) {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at least 257, has 200"));
  EXPECT_TRUE(std::filesystem::is_empty(options.output_dir));
}

}  // namespace
}  // namespace quiver
