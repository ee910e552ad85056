// The default model with its real weights, from text to vector, against what `transformers` gives.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "engine/model/model_config.h"
#include "engine/model/weights.h"
#include "engine/run/cpu_backend.h"
#include "engine/text/input_builder.h"
#include "engine/text/tokenizer.h"
#include "gtest/gtest.h"
#include "kernels/cpu/stored_type.h"
#include "nlohmann/json.hpp"
#include "tests/testing/run_backend.h"

namespace quiver {
namespace {

// `count` characters of `text` from the `begin`-th on.
std::string Characters(const std::string& text, int begin, int count) {
  std::string piece;
  int character = -1;
  for (const char c : text) {
    const bool continues = (static_cast<unsigned char>(c) & 0xc0) == 0x80;
    if (!continues) ++character;
    if (character >= begin && character < begin + count) piece.push_back(c);
  }
  return piece;
}

class MiniLmTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* model = std::getenv("QUIVER_DEFAULT_MODEL");
    const char* data = std::getenv("QUIVER_TEST_DATA");
    if (model == nullptr) GTEST_SKIP() << "QUIVER_DEFAULT_MODEL is not set";
    if (data == nullptr) GTEST_SKIP() << "QUIVER_TEST_DATA is not set";

    std::map<std::string, std::string> translations;
    std::ifstream lines(std::string(data) + "/text/udhr.jsonl");
    for (std::string line; std::getline(lines, line);) {
      const nlohmann::json translation = nlohmann::json::parse(line);
      translations[translation.at("code")] = translation.at("text");
    }
    std::ifstream golden("tests/golden/minilm_vectors.json");
    ASSERT_TRUE(golden);
    golden_ = nlohmann::json::parse(golden).at("texts");
    ASSERT_EQ(golden_.size(), 200u);

    absl::StatusOr<ModelConfig> config = LoadModelConfig(model);
    absl::StatusOr<std::unique_ptr<Weights>> weights = Weights::Open(model);
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
        Tokenizer::Load(std::string(model) + "/tokenizer.json");
    ASSERT_TRUE(config.ok() && weights.ok() && tokenizer.ok());
    dimensions_ = config->hidden_size;
    const InputBuilder inputs(tokenizer->get(), {.max_tokens = config->default_max_tokens,
                                                 .max_text_bytes = 1 << 20,
                                                 .vocabulary_size = config->vocab_size});
    for (const nlohmann::json& text : golden_) {
      absl::StatusOr<TokenizedInput> input = inputs.FromText(
          "", Characters(translations.at(text.at("code")), text.at("begin"), text.at("count")),
          Truncation::kRight);
      ASSERT_TRUE(input.ok()) << input.status();
      EXPECT_EQ(input->ids.size(), text.at("tokens"));
      EXPECT_EQ(input->truncated, text.at("truncated"));
      ids_.push_back(std::move(input->ids));
      std::string bytes;
      ASSERT_TRUE(absl::Base64Unescape(text.at("vector").get<std::string>(), &bytes));
      ASSERT_EQ(bytes.size(), 2u * dimensions_);
      expected_.emplace_back(dimensions_);
      cpu::WidenToFloat(cpu::StoredType::kF16, bytes.data(), dimensions_, expected_.back().data());
    }
    absl::StatusOr<std::unique_ptr<Backend>> backend = CreateCpuBackend(
        *config, std::shared_ptr<const Weights>(*std::move(weights)), CpuBackendOptions());
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
  }

  // Runs the texts `order` in batches of `batch_size`; each vector must be its text's, and where
  // another order has given it already, the same to the bit.
  void ExpectGolden(const std::vector<int>& order, size_t batch_size) {
    vectors_.resize(ids_.size());
    for (size_t first = 0; first < order.size(); first += batch_size) {
      const std::vector<int> batch(order.begin() + first,
                                   order.begin() + std::min(first + batch_size, order.size()));
      std::vector<std::vector<TokenId>> sequences;
      for (int text : batch) sequences.push_back(ids_[text]);
      const auto vectors = RunTogether(backend_.get(), sequences, dimensions_);
      for (size_t i = 0; i < batch.size(); ++i) {
        const int text = batch[i];
        EXPECT_GE(Cosine(vectors[i], expected_[text]), 0.99999)
            << golden_[text].at("code") << ", " << ids_[text].size() << " tokens";
        if (!vectors_[text].empty()) {
          EXPECT_EQ(vectors[i], vectors_[text]) << "text " << text;
        }
        vectors_[text] = vectors[i];
      }
    }
  }

  nlohmann::json golden_;
  std::vector<std::vector<TokenId>> ids_;
  std::vector<std::vector<float>> expected_;
  std::vector<std::vector<float>> vectors_;
  int dimensions_ = 0;
  std::unique_ptr<Backend> backend_;
};

TEST_F(MiniLmTest, GivesTheReferencesVectorsAloneAndInEveryCompany) {
  std::vector<int> order(ids_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  {
    SCOPED_TRACE("alone");
    ExpectGolden(order, 1);
  }
  {
    SCOPED_TRACE("in batches of equal lengths, as far as there are any");
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return ids_[a].size() < ids_[b].size(); });
    ExpectGolden(order, 16);
  }
  {
    SCOPED_TRACE("in mixed batches");
    std::sort(order.begin(), order.end(), [](int a, int b) { return a * 7 % 200 < b * 7 % 200; });
    ExpectGolden(order, 13);
  }
}

}  // namespace
}  // namespace quiver
