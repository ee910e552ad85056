#include "engine/embedder.h"

#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "engine/field_error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_embedder.h"
#include "tests/testing/fake_tokenizer.h"

namespace quiver {
namespace {

using ::testing::HasSubstr;

// The result of one input, waited for.
absl::StatusOr<Embedding> Embed(Embedder& embedder, const RequestPlan& plan, InputRef input,
                                Embedder::SubmitOptions options = {}) {
  auto tokens = embedder.Tokenize(plan, input);
  if (!tokens.ok()) return tokens.status();
  std::promise<absl::StatusOr<Embedding>> promise;
  absl::Status submitted =
      embedder.Submit(plan, *std::move(tokens), std::move(options),
                      [&promise](absl::StatusOr<Embedding> e) { promise.set_value(std::move(e)); });
  if (!submitted.ok()) return submitted;
  return promise.get_future().get();
}

void ExpectFieldError(const absl::Status& status, absl::string_view field,
                      absl::string_view message) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(ErrorField(status), field);
  EXPECT_THAT(std::string(status.message()), HasSubstr(std::string(message)));
}

TEST(EmbedderTest, ATextComesBackAsTheVectorOfItsIds) {
  auto embedder = MakeFakeEmbedder();
  auto plan = embedder->Plan({});
  ASSERT_TRUE(plan.ok()) << plan.status();
  auto embedding = Embed(*embedder, *plan, absl::string_view("ab"));
  ASSERT_TRUE(embedding.ok()) << embedding.status();
  EXPECT_EQ(embedding->token_count, 4);
  EXPECT_FALSE(embedding->truncated);
  EXPECT_EQ(embedding->vector.data, FakeVector({1, 3 + 'a', 3 + 'b', 2}, {.dimensions = 32}).data);
}

TEST(EmbedderTest, IdsRunAsTheyAre) {
  auto embedder = MakeFakeEmbedder();
  RequestOptions options;
  options.prompt_name = "query";
  auto plan = embedder->Plan(options);
  const std::vector<TokenId> ids = {7, 8, 9};
  auto embedding = Embed(*embedder, *plan, absl::MakeConstSpan(ids));
  ASSERT_TRUE(embedding.ok()) << embedding.status();
  EXPECT_EQ(embedding->vector.data, FakeVector(ids, {.dimensions = 32}).data);
}

TEST(EmbedderTest, ThePromptGoesBeforeTheText) {
  auto embedder = MakeFakeEmbedder();
  RequestOptions named;
  named.prompt_name = "query";
  RequestOptions none;
  none.prompt_name = "";
  const auto with = embedder->Tokenize(*embedder->Plan(named), absl::string_view("x"));
  const auto spelled = embedder->Tokenize(*embedder->Plan(none), absl::string_view("query: x"));
  ASSERT_TRUE(with.ok());
  EXPECT_EQ(with->ids, spelled->ids);
  RequestOptions instructed;
  instructed.instruction = "find it";
  EXPECT_EQ(embedder->Plan(instructed)->prompt, "Instruct: find it\nQuery:");
}

TEST(EmbedderTest, WrongOptionsNameFieldLimitAndValue) {
  auto embedder = MakeFakeEmbedder();
  RequestOptions options;
  options.dimensions = 33;
  ExpectFieldError(embedder->Plan(options).status(), "dimensions", "from 8 to 32; it is 33");
  options.dimensions = 0;
  ExpectFieldError(embedder->Plan(options).status(), "dimensions", "from 8 to 32; it is 0");
  options.dimensions = 7;
  ExpectFieldError(embedder->Plan(options).status(), "dimensions", "it is 7");
  options.dimensions.reset();
  options.prompt_name = "passage";
  ExpectFieldError(embedder->Plan(options).status(), "prompt_name",
                   "no prompt \"passage\"; its prompts are \"query\", \"document\"");
  options.prompt_name = std::string(100'000, 'x');
  EXPECT_LT(embedder->Plan(options).status().message().size(), 300);
  options.prompt_name = "query";
  options.instruction = "do";
  ExpectFieldError(embedder->Plan(options).status(), "instruction", "prompt_name");
  options.prompt_name.reset();
  options.instruction = "";
  ExpectFieldError(embedder->Plan(options).status(), "instruction", "empty");
  options.instruction = "a\xff";
  ExpectFieldError(embedder->Plan(options).status(), "instruction", "byte 1");
  options.instruction = std::string(1 << 20, 'x');
  ExpectFieldError(embedder->Plan(options).status(), "instruction", "it is 1048576");
}

TEST(EmbedderTest, AModelWithoutDimensionsOrInstructionsSaysSo) {
  ModelInfo info = FakeModelInfo();
  info.config.min_dimensions = info.config.hidden_size;
  info.config.instruction_template = "";
  info.config.prompts.clear();
  auto embedder =
      Embedder::CreateWith({}, info, std::make_unique<FakeTokenizer>(),
                           std::make_unique<FakeBackend>(FakeBackend::Options()), nullptr);
  ASSERT_TRUE(embedder.ok()) << embedder.status();
  RequestOptions options;
  options.dimensions = 16;
  ExpectFieldError((*embedder)->Plan(options).status(), "dimensions", "must be 32");
  options.dimensions = 32;
  EXPECT_TRUE((*embedder)->Plan(options).ok());
  options.instruction = "x";
  ExpectFieldError((*embedder)->Plan(options).status(), "instruction", "no instructions");
  options.instruction.reset();
  options.prompt_name = "query";
  ExpectFieldError((*embedder)->Plan(options).status(), "prompt_name", "it has none");
}

TEST(EmbedderTest, DefaultsComeFromTheOptionsAndAreCheckedAtCreation) {
  Embedder::Options options;
  options.default_dimensions = 16;
  options.default_prompt_name = "query";
  options.default_truncation = Truncation::kRight;
  auto embedder = MakeFakeEmbedder(options);
  const RequestPlan plan = *embedder->Plan({});
  EXPECT_EQ(plan.output.dimensions, 16);
  EXPECT_EQ(plan.prompt, "query: ");
  EXPECT_EQ(plan.truncation, Truncation::kRight);
  EXPECT_EQ(embedder->info().default_dimensions, 16);
  EXPECT_EQ(embedder->info().space_fingerprint, plan.space_fingerprint);
  RequestOptions request;
  request.prompt_name = "";
  request.truncation = Truncation::kNone;
  EXPECT_EQ(embedder->Plan(request)->prompt, "");
  EXPECT_EQ(embedder->Plan(request)->truncation, Truncation::kNone);

  const auto creation = [](Embedder::Options bad) {
    return Embedder::CreateWith(bad, FakeModelInfo(), std::make_unique<FakeTokenizer>(),
                                std::make_unique<FakeBackend>(FakeBackend::Options()), nullptr)
        .status();
  };
  Embedder::Options wrong;
  wrong.default_dimensions = 64;
  ExpectFieldError(creation(wrong), "default_dimensions", "it is 64");
  wrong = {};
  wrong.default_prompt_name = "x";
  ExpectFieldError(creation(wrong), "default_prompt_name", "\"x\"");
  wrong = {};
  wrong.max_input_tokens = 1025;
  ExpectFieldError(creation(wrong), "max_input_tokens", "1 to 1024");
  wrong = {};
  wrong.max_batch_tokens = 511;
  ExpectFieldError(creation(wrong), "max_batch_tokens", "at least 512");
}

TEST(EmbedderTest, TheSpaceIsNamedByWhatDecidesAVector) {
  auto embedder = MakeFakeEmbedder();
  const RequestPlan base = *embedder->Plan({});
  const auto space = [&](RequestOptions options) {
    return embedder->Plan(options)->space_fingerprint;
  };
  EXPECT_EQ(base.space_fingerprint.size(), 32);
  RequestOptions options;
  options.dimensions = 16;
  EXPECT_NE(space(options), base.space_fingerprint);
  options = {};
  options.normalize = false;
  EXPECT_NE(space(options), base.space_fingerprint);
  options = {};
  options.output_type = OutputType::kInt8;
  EXPECT_EQ(space(options), base.space_fingerprint);
  options = {};
  options.prompt_name = "query";
  EXPECT_EQ(space(options), base.space_fingerprint);
  EXPECT_EQ(base.prompt_fingerprint, "");
  EXPECT_NE(embedder->Plan(options)->prompt_fingerprint, "");
  RequestOptions other;
  other.instruction = "x";
  EXPECT_NE(embedder->Plan(options)->prompt_fingerprint, embedder->Plan(other)->prompt_fingerprint);

  const auto changed = [](auto change) {
    ModelInfo info = FakeModelInfo();
    change(&info);
    return (*Embedder::CreateWith({}, info, std::make_unique<FakeTokenizer>(),
                                  std::make_unique<FakeBackend>(FakeBackend::Options()), nullptr))
        ->info()
        .space_fingerprint;
  };
  EXPECT_EQ(changed([](ModelInfo*) {}), base.space_fingerprint);
  EXPECT_EQ(changed([](ModelInfo* i) { i->name = "other"; }), base.space_fingerprint);
  EXPECT_NE(changed([](ModelInfo* i) { i->weights_fingerprint = "x"; }), base.space_fingerprint);
  EXPECT_NE(changed([](ModelInfo* i) { i->config.pooling = Pooling::kMean; }),
            base.space_fingerprint);
  EXPECT_NE(changed([](ModelInfo* i) { i->config.rope_theta = 5; }), base.space_fingerprint);
  EXPECT_NE(changed([](ModelInfo* i) { i->config.prompts[1].second = "d: "; }),
            base.space_fingerprint);
  EXPECT_NE(changed([](ModelInfo* i) { i->config.quantization = "awq"; }), base.space_fingerprint);
}

TEST(EmbedderTest, OverLongInputsAreRefusedOrCut) {
  Embedder::Options options;
  options.max_input_tokens = 10;
  auto embedder = MakeFakeEmbedder(options);
  RequestPlan plan = *embedder->Plan({});
  ExpectFieldError(embedder->Tokenize(plan, absl::string_view("0123456789")).status(), "text",
                   "10");
  plan.truncation = Truncation::kRight;
  auto embedding = Embed(*embedder, plan, absl::string_view("0123456789"));
  ASSERT_TRUE(embedding.ok()) << embedding.status();
  EXPECT_EQ(embedding->token_count, 10);
  EXPECT_TRUE(embedding->truncated);
}

TEST(EmbedderTest, ARefusedInputIsLeftToTheCaller) {
  auto embedder = MakeFakeEmbedder();
  EXPECT_TRUE(embedder->Drain(absl::InfiniteFuture()));
  const RequestPlan plan = *embedder->Plan({});
  TokenizedInput input{{1, 5, 2}, true};
  const absl::Status status =
      embedder->Submit(plan, std::move(input), {}, [](absl::StatusOr<Embedding>) { FAIL(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(input.ids, (std::vector<TokenId>{1, 5, 2}));
}

TEST(EmbedderTest, ABackendThatFailsItsWarmUpIsNotServed) {
  auto broken = std::make_unique<FakeBackend>(FakeBackend::Options{
      .on_begin = [](const PackedBatch&) { return absl::InternalError("no device"); }});
  const auto embedder = Embedder::CreateWith({}, FakeModelInfo(), std::make_unique<FakeTokenizer>(),
                                             std::move(broken), nullptr);
  EXPECT_EQ(embedder.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(embedder.status().message()), HasSubstr("no device"));
}

TEST(EmbedderTest, ATokenizerOfAnotherModelIsRefused) {
  ModelInfo info = FakeModelInfo();
  info.config.vocab_size = 100;
  const auto embedder =
      Embedder::CreateWith({}, info, std::make_unique<FakeTokenizer>(),
                           std::make_unique<FakeBackend>(FakeBackend::Options()), nullptr);
  EXPECT_EQ(embedder.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace quiver
