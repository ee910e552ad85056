#include "engine/text/input_builder.h"

#include <string>
#include <vector>

#include "engine/field_error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/text/fixtures.h"

namespace quiver {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Truncation kAll[] = {Truncation::kNone, Truncation::kRight, Truncation::kLeft};

class InputBuilderTest : public ::testing::Test {
 protected:
  InputBuilder Builder(const Tokenizer& tokenizer, int max_tokens, int64_t max_text_bytes = 1000) {
    return InputBuilder(&tokenizer, {.max_tokens = max_tokens, .max_text_bytes = max_text_bytes});
  }
  // The message of an error about `field`.
  static std::string Message(const absl::StatusOr<TokenizedInput>& result,
                             const std::string& field) {
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ErrorField(result.status()), field);
    return std::string(result.status().message());
  }

  std::unique_ptr<Tokenizer> qwen_ = LoadFixture(kQwenSmall);
  std::unique_ptr<Tokenizer> bert_ = LoadFixture(kBertSmall);
};

TEST_F(InputBuilderTest, PutsSpecialTokensAround) {
  const auto bert = Builder(*bert_, 10).FromText("", "Hello world", Truncation::kNone);
  ASSERT_TRUE(bert.ok()) << bert.status();
  EXPECT_THAT(bert->ids, ElementsAre(2, 287, 1082, 365, 373, 3));
  EXPECT_FALSE(bert->truncated);
  const auto qwen = Builder(*qwen_, 10).FromText("", "!", Truncation::kNone);
  ASSERT_TRUE(qwen.ok()) << qwen.status();
  EXPECT_THAT(qwen->ids, ElementsAre(0, 1428));
}

TEST_F(InputBuilderTest, PromptAndTextAreTokenizedAsOneString) {
  // " b" is one token only if the text follows the prompt's space directly.
  const auto joined = Builder(*qwen_, 10).FromText("a ", "b", Truncation::kNone);
  ASSERT_TRUE(joined.ok());
  EXPECT_EQ(joined->ids, (std::vector<TokenId>{64, 293, 1428}));
}

TEST_F(InputBuilderTest, ALengthOfExactlyTheLimitIsWhole) {
  for (const Truncation truncation : kAll) {
    const auto result = Builder(*bert_, 6).FromText("", "Hello world", truncation);
    ASSERT_TRUE(result.ok());
    EXPECT_THAT(result->ids, ElementsAre(2, 287, 1082, 365, 373, 3));
    EXPECT_FALSE(result->truncated);
  }
}

TEST_F(InputBuilderTest, OverLongTextIsRefusedWithBothNumbers) {
  const auto result = Builder(*bert_, 5).FromText("", "Hello world", Truncation::kNone);
  EXPECT_THAT(Message(result, "text"), AllOf(HasSubstr("at most 5 tokens"), HasSubstr("it has 6")));
}

TEST_F(InputBuilderTest, RightKeepsTheBeginningAndLeftTheEnd) {
  const auto right = Builder(*bert_, 5).FromText("", "Hello world", Truncation::kRight);
  ASSERT_TRUE(right.ok());
  EXPECT_THAT(right->ids, ElementsAre(2, 287, 1082, 365, 3));
  EXPECT_TRUE(right->truncated);
  const auto left = Builder(*bert_, 5).FromText("", "Hello world", Truncation::kLeft);
  ASSERT_TRUE(left.ok());
  EXPECT_THAT(left->ids, ElementsAre(2, 1082, 365, 373, 3));
  EXPECT_TRUE(left->truncated);
}

TEST_F(InputBuilderTest, ThePromptStaysUnderBothTruncations) {
  const InputBuilder builder = Builder(*bert_, 6);
  const auto right = builder.FromText("world a ", "b c a b c", Truncation::kRight);
  ASSERT_TRUE(right.ok());
  EXPECT_THAT(right->ids, ElementsAre(2, 373, 43, 44, 45, 3));
  const auto left = builder.FromText("world a ", "c c c b c", Truncation::kLeft);
  ASSERT_TRUE(left.ok());
  EXPECT_THAT(left->ids, ElementsAre(2, 373, 43, 44, 45, 3));
}

TEST_F(InputBuilderTest, APromptWithoutRoomForTextIsRefused) {
  for (const Truncation truncation : {Truncation::kRight, Truncation::kLeft}) {
    const auto result = Builder(*bert_, 4).FromText("a b ", "c", truncation);
    EXPECT_THAT(Message(result, "text"), HasSubstr("take 4 tokens of at most 4"));
  }
}

TEST_F(InputBuilderTest, EmptyTextIsRefusedWithAndWithoutPrompt) {
  for (const char* prompt : {"", "query: "}) {
    EXPECT_THAT(Message(Builder(*qwen_, 10).FromText(prompt, "", Truncation::kRight), "text"),
                HasSubstr("must not be empty"));
  }
}

TEST_F(InputBuilderTest, WhiteSpaceIsText) {
  const auto result = Builder(*bert_, 10).FromText("", "  ", Truncation::kNone);
  ASSERT_TRUE(result.ok());
  EXPECT_THAT(result->ids, ElementsAre(2, 3));
}

TEST_F(InputBuilderTest, InvalidUtf8IsNamedByItsByteInTheText) {
  const auto result = Builder(*qwen_, 10).FromText("prompt ", "ab\xFF", Truncation::kNone);
  EXPECT_THAT(Message(result, "text"), HasSubstr("byte 2"));
}

TEST_F(InputBuilderTest, TextOverTheLimitOfBytesIsRefusedOrCutFirst) {
  const InputBuilder builder = Builder(*bert_, 10, 400);
  std::string text = "world ";
  for (int i = 0; i < 500; ++i) text += "a ";
  text += "b";
  EXPECT_THAT(Message(builder.FromText("", text, Truncation::kNone), "text"),
              AllOf(HasSubstr("at most 400 bytes"), HasSubstr("it has 1007")));
  const auto right = builder.FromText("", text, Truncation::kRight);
  ASSERT_TRUE(right.ok()) << right.status();
  EXPECT_THAT(right->ids, ElementsAre(2, 373, 43, 43, 43, 43, 43, 43, 43, 3));
  EXPECT_TRUE(right->truncated);
  const auto left = builder.FromText("", text, Truncation::kLeft);
  ASSERT_TRUE(left.ok()) << left.status();
  EXPECT_THAT(left->ids, ElementsAre(2, 43, 43, 43, 43, 43, 43, 43, 44, 3));
  EXPECT_TRUE(left->truncated);
}

TEST_F(InputBuilderTest, ACutThatWouldDecideTheIdsIsRefused) {
  // Nothing but white space within the limit: what follows it decides the ids.
  const std::string text = std::string(401, ' ') + "world";
  EXPECT_THAT(Message(Builder(*bert_, 10, 400).FromText("", text, Truncation::kRight), "text"),
              AllOf(HasSubstr("at most 400 bytes"), HasSubstr("it has 406")));
}

TEST_F(InputBuilderTest, BytesAreCutAtABorderOfCharacters) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "人";
  for (int64_t limit = 600; limit < 606; ++limit) {
    for (const Truncation truncation : {Truncation::kRight, Truncation::kLeft}) {
      const auto result = Builder(*bert_, 5, limit).FromText("", text, truncation);
      ASSERT_TRUE(result.ok()) << result.status();
      EXPECT_THAT(result->ids, ElementsAre(2, 266, 266, 266, 3));
    }
  }
}

TEST_F(InputBuilderTest, GivenIdsStayAsTheyAre) {
  const std::vector<TokenId> ids = {5, 0, 1602};
  const auto result = Builder(*bert_, 3).FromIds(ids, Truncation::kNone);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->ids, ids);
  EXPECT_FALSE(result->truncated);
}

TEST_F(InputBuilderTest, GivenIdsAreChecked) {
  const InputBuilder builder = Builder(*bert_, 3);
  EXPECT_THAT(Message(builder.FromIds({}, Truncation::kNone), "token_ids"),
              HasSubstr("must not be empty"));
  EXPECT_THAT(Message(builder.FromIds({5, 1603}, Truncation::kNone), "token_ids"),
              HasSubstr("must be from 0 to 1602; the id at index 1 is 1603"));
  EXPECT_THAT(Message(builder.FromIds({-1}, Truncation::kNone), "token_ids"),
              HasSubstr("the id at index 0 is -1"));
  EXPECT_THAT(Message(builder.FromIds({5, 5, 5, 5}, Truncation::kNone), "token_ids"),
              HasSubstr("must be at most 3; there are 4"));
}

TEST_F(InputBuilderTest, TheModelsVocabularyMayBeLargerThanTheTokenizers) {
  const InputBuilder builder(bert_.get(),
                             {.max_tokens = 3, .max_text_bytes = 1000, .vocabulary_size = 2000});
  EXPECT_TRUE(builder.FromIds({1999}, Truncation::kNone).ok());
  EXPECT_FALSE(builder.FromIds({2000}, Truncation::kNone).ok());
}

TEST_F(InputBuilderTest, CutIdsKeepTheSpecialTokensTheyCameWith) {
  const InputBuilder builder = Builder(*bert_, 4);
  const std::vector<TokenId> with = {2, 10, 11, 12, 3}, without = {10, 11, 12, 13, 14};
  EXPECT_THAT(builder.FromIds(with, Truncation::kRight)->ids, ElementsAre(2, 10, 11, 3));
  EXPECT_THAT(builder.FromIds(with, Truncation::kLeft)->ids, ElementsAre(2, 11, 12, 3));
  EXPECT_THAT(builder.FromIds(without, Truncation::kRight)->ids, ElementsAre(10, 11, 12, 13));
  EXPECT_THAT(builder.FromIds(without, Truncation::kLeft)->ids, ElementsAre(11, 12, 13, 14));
  EXPECT_TRUE(builder.FromIds(with, Truncation::kRight)->truncated);
}

}  // namespace
}  // namespace quiver
