// Ids against the digests of tests/golden/token_ids.json, which tests/golden/make_token_ids.py
// takes from the tokenizers wheel.
#include <cstdlib>
#include <fstream>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/text/corpora.h"
#include "tests/engine/text/fixtures.h"

namespace quiver {
namespace {

using ::testing::ElementsAre;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

class TokenIdsTest : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  static const nlohmann::json& Golden() {
    static const nlohmann::json* const golden =
        new nlohmann::json(nlohmann::json::parse(std::ifstream("tests/golden/token_ids.json")));
    return *golden;
  }
};

TEST_P(TokenIdsTest, EqualThoseOfTheWheel) {
  const auto& [name, corpus] = GetParam();
  const std::string data = Environment("QUIVER_TEST_DATA");
  const std::string minilm = Environment("QUIVER_DEFAULT_MODEL");
  std::string folder = absl::StrCat("tests/fixtures/tokenizers/", name);
  if (name == "all-MiniLM-L6-v2") {
    if (minilm.empty()) GTEST_SKIP() << "QUIVER_DEFAULT_MODEL is not set";
    folder = minilm;
  } else if (name.find("qwen3") == 0) {
    if (data.empty()) GTEST_SKIP() << "QUIVER_TEST_DATA is not set";
    folder = absl::StrCat(data, "/", name);
  }
  if (corpus != "random" && data.empty()) GTEST_SKIP() << "QUIVER_TEST_DATA is not set";

  const auto tokenizer = LoadFixture(folder + "/tokenizer.json");
  ASSERT_NE(tokenizer, nullptr);
  uint64_t digest = 0xCBF29CE484222325;
  const auto add = [&](uint64_t value) { digest = (digest ^ value) * 0x100000001B3; };
  size_t count = 0;
  const std::vector<std::string> texts = ReadCorpus(corpus, data);
  for (const std::string& text : texts) {
    std::vector<TokenId> ids = tokenizer->prefix_ids();
    ASSERT_TRUE(tokenizer->Encode(text, &ids).ok());
    ids.insert(ids.end(), tokenizer->suffix_ids().begin(), tokenizer->suffix_ids().end());
    count += ids.size();
    add(ids.size());
    for (const TokenId id : ids) add(static_cast<uint64_t>(id));
  }
  const nlohmann::json& golden = Golden()["digests"][name][corpus];
  EXPECT_EQ(texts.size(), golden["texts"]);
  EXPECT_EQ(count, golden["ids"]);
  EXPECT_EQ(std::string(absl::StrCat(absl::Hex(digest, absl::kZeroPad16))), golden["digest"]);
}

INSTANTIATE_TEST_SUITE_P(
    , TokenIdsTest,
    ::testing::Combine(::testing::Values("qwen-small", "bert-small", "qwen3-embedding-0.6B",
                                         "qwen3-embedding-4B", "all-MiniLM-L6-v2"),
                       ::testing::Values("random", "udhr", "blns", "normalization")),
    [](const auto& parameters) {
      return absl::StrReplaceAll(
          absl::StrCat(std::get<0>(parameters.param), "_", std::get<1>(parameters.param)),
          {{"-", "_"}, {".", "_"}});
    });

TEST(Qwen3TokenizerTest, GivesTheIdsTheModelWasPublishedWith) {
  const std::string data = Environment("QUIVER_TEST_DATA");
  if (data.empty()) GTEST_SKIP() << "QUIVER_TEST_DATA is not set";
  const auto tokenizer = LoadFixture(data + "/qwen3-embedding-0.6B/tokenizer.json");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_THAT(Ids(*tokenizer, "!"), ElementsAre(0));
  EXPECT_THAT(Ids(*tokenizer, "test"), ElementsAre(1944));
  EXPECT_THAT(Ids(*tokenizer, "test again"), ElementsAre(1944, 1549));
  EXPECT_THAT(Ids(*tokenizer, "Hello world"), ElementsAre(9707, 1879));
  EXPECT_THAT(Ids(*tokenizer, "<|im_end|>"), ElementsAre(151645));
  EXPECT_THAT(tokenizer->suffix_ids(), ElementsAre(151643));
}

}  // namespace
}  // namespace quiver
