// The test model (Qwen3 shape, learned weights) against the vectors that came with it.
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/run/cpu_backend.h"
#include "engine/text/tokenizer.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/testing/run_backend.h"

namespace quiver {
namespace {

class TrainedDecoderTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* dir = std::getenv("QUIVER_TEST_MODEL");
    if (dir == nullptr) GTEST_SKIP() << "QUIVER_TEST_MODEL is not set";
    dir_ = dir;
    std::ifstream in(dir_ + "/golden.json");
    ASSERT_TRUE(in) << dir_ << " has no golden.json";
    texts_ = nlohmann::json::parse(in).at("texts");
    ASSERT_EQ(texts_.size(), 21u);
    for (const nlohmann::json& text : texts_) {
      ids_.push_back(text.at("token_ids").get<std::vector<TokenId>>());
      expected_.push_back(text.at("embedding").get<std::vector<float>>());
    }
  }

  std::unique_ptr<Backend> MakeBackend(int max_batch_tokens) {
    const absl::StatusOr<ModelConfig> config = LoadModelConfig(dir_);
    EXPECT_TRUE(config.ok()) << config.status();
    absl::StatusOr<std::unique_ptr<Weights>> weights = Weights::Open(dir_);
    EXPECT_TRUE(weights.ok()) << weights.status();
    if (!config.ok() || !weights.ok()) return nullptr;
    dimensions_ = config->hidden_size;
    absl::StatusOr<std::unique_ptr<Backend>> backend =
        CreateCpuBackend(*config, *std::move(weights), {.max_batch_tokens = max_batch_tokens});
    EXPECT_TRUE(backend.ok()) << backend.status();
    return backend.ok() ? *std::move(backend) : nullptr;
  }

  void ExpectGolden(const std::vector<std::vector<float>>& vectors) {
    for (size_t i = 0; i < expected_.size(); ++i) {
      EXPECT_GE(Cosine(vectors[i], expected_[i]), 0.99999)
          << texts_[i].at("note") << ", " << ids_[i].size() << " tokens";
    }
  }

  std::string dir_;
  nlohmann::json texts_;
  std::vector<std::vector<TokenId>> ids_;
  std::vector<std::vector<float>> expected_;
  int dimensions_ = 0;
};

TEST_F(TrainedDecoderTest, IdsAreTheGoldenOnes) {
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Tokenizer::Load(dir_ + "/tokenizer.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (size_t i = 0; i < ids_.size(); ++i) {
    std::vector<TokenId> ids = (*tokenizer)->prefix_ids();
    const std::vector<TokenId>& suffix = (*tokenizer)->suffix_ids();
    ASSERT_TRUE((*tokenizer)->Encode(texts_[i].at("text").get<std::string>(), &ids).ok());
    const size_t limit = 4096 - suffix.size();
    if (ids.size() > limit) ids.resize(limit);
    ids.insert(ids.end(), suffix.begin(), suffix.end());
    EXPECT_EQ(ids, ids_[i]) << texts_[i].at("note");
  }
}

TEST_F(TrainedDecoderTest, VectorsAloneAreTheGoldenOnes) {
  const std::unique_ptr<Backend> backend = MakeBackend(0);
  ASSERT_NE(backend, nullptr);
  ExpectGolden(RunAlone(backend.get(), ids_, dimensions_));
}

TEST_F(TrainedDecoderTest, VectorsInOneBatchAreTheGoldenOnesOverAndOver) {
  size_t tokens = 0;
  for (const std::vector<TokenId>& ids : ids_) tokens += ids.size();
  const std::unique_ptr<Backend> backend = MakeBackend(static_cast<int>(tokens));
  ASSERT_NE(backend, nullptr);
  const std::vector<std::vector<float>> first = RunTogether(backend.get(), ids_, dimensions_);
  ExpectGolden(first);
  EXPECT_EQ(RunTogether(backend.get(), ids_, dimensions_, /*max_us=*/0), first);
}

}  // namespace
}  // namespace quiver
