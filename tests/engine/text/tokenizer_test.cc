// Ids on the cut tokenizers; the expected ones are those of tokenizers 0.23.3.
#include "engine/text/tokenizer.h"

#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/text/corpora.h"
#include "tests/engine/text/fixtures.h"

namespace quiver {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Case {
  std::string text;
  std::vector<TokenId> ids;
};

TEST(ByteLevelTokenizerTest, GivesTheIdsOfHuggingFace) {
  const auto tokenizer = LoadFixture(kQwenSmall);
  const Case cases[] = {
      {"!", {0}},
      {"Hello world", {39, 301, 385, 289, 269, 507}},
      {"I'LL don'\xC5\xBF", {40, 6, 43, 43, 294, 263, 6, 129, 123}},
      {"a  b \n\n c", {64, 220, 293, 220, 271, 272}},
      {"2024", {17, 15, 17, 19}},
      {"人人 生", {1028, 1028, 220, 1057}},
      {"Größe İstanbul", {38, 81, 1263, 1386}},
      {"", {}},
      {std::string("\0a\xEF\xBF\xBD"
                   "b\tc",
                   8),
       {188, 64, 171, 123, 121, 65, 197, 66}},
  };
  for (const Case& c : cases) EXPECT_EQ(Ids(*tokenizer, c.text), c.ids) << c.text;
}

TEST(ByteLevelTokenizerTest, ComposesBeforeSplitting) {
  const auto tokenizer = LoadFixture(kQwenSmall);
  EXPECT_THAT(Ids(*tokenizer, "é"), ElementsAre(771));
  EXPECT_THAT(Ids(*tokenizer, "e\xCC\x81"), ElementsAre(771));
}

TEST(ByteLevelTokenizerTest, SpelledSpecialTokensBecomeTheirIds) {
  const auto tokenizer = LoadFixture(kQwenSmall);
  EXPECT_THAT(Ids(*tokenizer, "<|im_end|>x"), ElementsAre(1430, 87));
  EXPECT_THAT(Ids(*tokenizer, "<|im_end|><|endoftext|>"), ElementsAre(1430, 1428));
  EXPECT_GT(Ids(*tokenizer, "<|im_end").size(), 1u);
}

TEST(ByteLevelTokenizerTest, EndOfTextComesOnceAndFromThePostProcessor) {
  const auto tokenizer = LoadFixture(kQwenSmall);
  EXPECT_THAT(tokenizer->prefix_ids(), IsEmpty());
  EXPECT_THAT(tokenizer->suffix_ids(), ElementsAre(1428));
  EXPECT_EQ(tokenizer->vocabulary_size(), 1454);
}

TEST(WordPieceTokenizerTest, GivesTheIdsOfHuggingFace) {
  const auto tokenizer = LoadFixture(kBertSmall);
  const Case cases[] = {
      {"!", {5}},
      {"Hello world", {287, 1082, 365, 373}},
      {"I'LL don'\xC5\xBF", {51, 11, 507, 408, 11, 1}},
      {"é e\xCC\x81", {47, 47}},
      {"a  b \n\n c", {43, 44, 45}},
      {"2024", {1325, 834}},
      {"[MASK]x", {4, 66}},
      {"人人 生", {266, 266, 273}},
      {"Größe İstanbul", {1359, 365, 1330, 1292}},
      {"", {}},
      {std::string("\0a\xEF\xBF\xBD"
                   "b\tc",
                   8),
       {43, 782, 45}},
  };
  for (const Case& c : cases) EXPECT_EQ(Ids(*tokenizer, c.text), c.ids) << c.text;
}

TEST(WordPieceTokenizerTest, WordsOverTheLimitOfCharactersAreUnknown) {
  const auto tokenizer = LoadFixture(kBertSmall);
  EXPECT_EQ(Ids(*tokenizer, std::string(100, 'x')).size(), 100u);
  EXPECT_THAT(Ids(*tokenizer, std::string(101, 'x')), ElementsAre(1));
  // Characters, not bytes.
  std::string sharp;
  for (int i = 0; i < 100; ++i) sharp += "я";
  EXPECT_EQ(Ids(*tokenizer, sharp).size(), 100u);
}

TEST(WordPieceTokenizerTest, IgnoresTruncationAndPadding) {
  nlohmann::json json = FixtureJson(kBertSmall);
  ASSERT_TRUE(json["truncation"].is_object());
  ASSERT_TRUE(json["padding"].is_object());
  const auto tokenizer = LoadFixture(kBertSmall);
  std::string text;
  for (int i = 0; i < 500; ++i) text += "the ";
  EXPECT_EQ(Ids(*tokenizer, text).size(), 500u);
  EXPECT_THAT(tokenizer->prefix_ids(), ElementsAre(2));
  EXPECT_THAT(tokenizer->suffix_ids(), ElementsAre(3));
}

TEST(TokenizerTest, InvalidUtf8IsNamedByItsByteAndAddsNothing) {
  for (const char* path : {kQwenSmall, kBertSmall}) {
    const auto tokenizer = LoadFixture(path);
    std::vector<TokenId> ids = {7};
    const absl::Status status = tokenizer->Encode("caf\xE9 au lait", &ids);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("byte 3"));
    EXPECT_THAT(ids, ElementsAre(7));
  }
}

TEST(TokenizerTest, ThreadsShareOneTokenizer) {
  for (const char* path : {kQwenSmall, kBertSmall}) {
    const auto tokenizer = LoadFixture(path);
    std::vector<std::vector<TokenId>> alone;
    for (int i = 0; i < 500; ++i) alone.push_back(Ids(*tokenizer, RandomText(i)));
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 500; ++i) EXPECT_EQ(Ids(*tokenizer, RandomText(i)), alone[i]);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

TEST(TokenizerTest, AppendsToWhatIsThere) {
  const auto tokenizer = LoadFixture(kBertSmall);
  std::vector<TokenId> ids = {7};
  ASSERT_TRUE(tokenizer->Encode("world", &ids).ok());
  EXPECT_THAT(ids, ElementsAre(7, 373));
}

// A megabyte without a border to split at: quadratic work would take minutes.
TEST(ByteLevelTokenizerTest, LongPiecesTakeNoQuadraticTime) {
  const auto tokenizer = LoadFixture(kQwenSmall);
  for (const char letter : {'a', 'x', ' '}) {
    const std::string text(1 << 20, letter);
    const std::vector<TokenId> ids = Ids(*tokenizer, text);
    EXPECT_GE(ids.size(), 1u << 12);
  }
}

TEST(ByteLevelTokenizerTest, ShortAndLongPiecesMergeAlike) {
  // The same letters as pieces on both sides of the length at which the algorithm changes: a
  // piece's ids may only depend on what the merges say, so a prefix common to both stays common up
  // to the cut.
  const auto tokenizer = LoadFixture(kQwenSmall);
  std::string word;
  for (int i = 0; word.size() < 128; ++i) word += i % 3 == 0 ? "ation" : i % 3 == 1 ? "the" : "ing";
  word.resize(128);
  const std::vector<TokenId> shorter = Ids(*tokenizer, word);
  const std::vector<TokenId> longer = Ids(*tokenizer, word + "x");
  ASSERT_EQ(longer.size(), shorter.size() + 1);
  EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), longer.begin()));
}

TEST(TokenizerTest, FingerprintFollowsWhatDecidesIdsAndNothingElse) {
  const nlohmann::json original = FixtureJson(kBertSmall);
  const std::string fingerprint = (*FromJson(original))->fingerprint();
  EXPECT_EQ(fingerprint.size(), 32u);
  EXPECT_EQ(LoadFixture(kBertSmall)->fingerprint(), fingerprint);

  nlohmann::json json = original;
  json["truncation"] = nullptr;
  json["padding"] = nullptr;
  json["decoder"] = nullptr;
  EXPECT_EQ((*FromJson(json))->fingerprint(), fingerprint);

  json = original;
  json["normalizer"]["lowercase"] = false;
  EXPECT_NE((*FromJson(json))->fingerprint(), fingerprint);

  json = original;
  std::swap(json["model"]["vocab"]["the"], json["model"]["vocab"]["and"]);
  EXPECT_NE((*FromJson(json))->fingerprint(), fingerprint);

  EXPECT_NE(LoadFixture(kQwenSmall)->fingerprint(), fingerprint);
}

}  // namespace
}  // namespace quiver
