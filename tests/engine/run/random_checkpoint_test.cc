// Random checkpoints of both families against the vectors of tests/fixtures/golden.
#include <memory>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/run/cpu_backend.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testing/run_backend.h"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {
namespace {

constexpr double kMinCosine = 0.99999;

class RandomCheckpointTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const nlohmann::json golden = nlohmann::json::parse(
        ReadFile(std::string("tests/fixtures/golden/random_") + GetParam() + ".json"));
    model_ = TinyModelFromJson(golden.at("model"));
    lengths_ = golden.at("lengths").get<std::vector<int>>();
    expected_ = golden.at("vectors").get<std::vector<std::vector<float>>>();
    for (size_t i = 0; i < lengths_.size(); ++i) sequences_.push_back(Ids(static_cast<int>(i)));

    const std::string dir = MakeTinyModelDir(model_);
    const absl::StatusOr<ModelConfig> config = LoadModelConfig(dir);
    ASSERT_TRUE(config.ok()) << config.status();
    absl::StatusOr<std::unique_ptr<Weights>> weights = Weights::Open(dir);
    ASSERT_TRUE(weights.ok()) << weights.status();
    absl::StatusOr<std::unique_ptr<Backend>> backend = CreateCpuBackend(
        *config, *std::move(weights), {.num_threads = 2, .max_batch_tokens = 16384});
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
  }

  // The ids of golden input `number`; others of its length from other streams.
  std::vector<TokenId> Ids(int number, int stream = 0) const {
    return RandomIds(model_.seed, number + stream, lengths_[number], model_.vocab_size);
  }

  void ExpectGolden(const std::vector<std::vector<float>>& vectors) const {
    ASSERT_EQ(vectors.size(), expected_.size());
    for (size_t i = 0; i < expected_.size(); ++i) {
      EXPECT_GE(Cosine(vectors[i], expected_[i]), kMinCosine) << lengths_[i] << " tokens";
    }
  }

  TinyModel model_;
  std::vector<int> lengths_;
  std::vector<std::vector<TokenId>> sequences_;
  std::vector<std::vector<float>> expected_;
  std::unique_ptr<Backend> backend_;
};

TEST_P(RandomCheckpointTest, AloneEachVectorIsTheGoldenOne) {
  ExpectGolden(RunAlone(backend_.get(), sequences_, model_.hidden_size));
}

TEST_P(RandomCheckpointTest, InAMixedBatchEachVectorIsTheGoldenOneOverAndOver) {
  const std::vector<std::vector<float>> first =
      RunTogether(backend_.get(), sequences_, model_.hidden_size);
  ExpectGolden(first);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(RunTogether(backend_.get(), sequences_, model_.hidden_size), first) << "run " << i;
  }
}

TEST_P(RandomCheckpointTest, AmongSequencesOfItsLengthEachVectorIsTheGoldenOne) {
  for (size_t i = 0; i < lengths_.size(); ++i) {
    const int number = static_cast<int>(i);
    const std::vector<std::vector<TokenId>> batch = {Ids(number, 1000), Ids(number),
                                                     Ids(number, 2000)};
    const std::vector<std::vector<float>> vectors =
        RunTogether(backend_.get(), batch, model_.hidden_size);
    EXPECT_GE(Cosine(vectors[1], expected_[i]), kMinCosine) << lengths_[i] << " tokens";
    EXPECT_LT(Cosine(vectors[0], expected_[i]), kMinCosine) << lengths_[i] << " tokens";
  }
}

INSTANTIATE_TEST_SUITE_P(Models, RandomCheckpointTest,
                         testing::Values("qwen3_tied", "qwen3_untied", "qwen3_sharded", "bert_mean",
                                         "bert_cls"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace quiver
