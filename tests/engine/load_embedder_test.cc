// A directory becomes an engine, or an error that names what is wrong with it.
#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "engine/embedder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/run_backend.h"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {
namespace {

using testing::AllOf;
using testing::HasSubstr;

absl::StatusOr<std::unique_ptr<Embedder>> Load(const std::string& dir,
                                               Embedder::Options options = {}) {
  options.model_dir = dir;
  options.num_threads = 2;
  return Embedder::Create(std::move(options), nullptr);
}

absl::Status LoadError(const std::string& dir, Embedder::Options options = {}) {
  absl::StatusOr<std::unique_ptr<Embedder>> embedder = Load(dir, std::move(options));
  return embedder.status();
}

std::string Space(const TinyModel& model) {
  const auto embedder = Load(MakeTinyModelDir(model));
  EXPECT_TRUE(embedder.ok()) << embedder.status();
  return embedder.ok() ? (*embedder)->info().space_fingerprint : "";
}

absl::StatusOr<Embedding> EmbedText(Embedder* embedder, const std::string& text) {
  const absl::StatusOr<RequestPlan> plan = embedder->Plan({});
  if (!plan.ok()) return plan.status();
  absl::StatusOr<TokenizedInput> input = embedder->Tokenize(*plan, text);
  if (!input.ok()) return input.status();
  absl::Notification done;
  absl::StatusOr<Embedding> result;
  const absl::Status submitted =
      embedder->Submit(*plan, *std::move(input), {}, [&](absl::StatusOr<Embedding> r) {
        result = std::move(r);
        done.Notify();
      });
  if (!submitted.ok()) return submitted;
  done.WaitForNotification();
  return result;
}

TEST(LoadEmbedderTest, ALayerThatTheConfigDoesNotCountIsNamed) {
  for (TinyModel model : {TinyModel(), TinyBert()}) {
    for (const bool key_prefix : {true, false}) {
      model.key_prefix = key_prefix;
      model.num_layers = 3;
      const std::string dir = MakeTinyModelDir(model);
      model.num_layers = 2;
      WriteFile(dir + "/config.json", ReadFile(MakeTinyModelDir(model) + "/config.json"));
      const bool bert = model.family == Family::kBert;
      const std::string prefix = !key_prefix ? "" : bert ? "bert." : "model.";
      EXPECT_THAT(LoadError(dir).ToString(),
                  AllOf(HasSubstr("INVALID_ARGUMENT"), HasSubstr("model.safetensors"),
                        HasSubstr("\"" + prefix + (bert ? "encoder.layer.2." : "layers.2.")),
                        HasSubstr("config.json"), HasSubstr("num_hidden_layers is 2")));
    }
  }
}

TEST(LoadEmbedderTest, AFifoInPlaceOfAFileIsRefusedWithoutWaitingForAWriter) {
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors", "modules.json"}) {
    const std::string dir = MakeTinyModelDir(TinyBert());
    const std::string path = dir + "/" + name;
    ASSERT_TRUE(std::filesystem::remove(path));
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    EXPECT_THAT(LoadError(dir).ToString(),
                AllOf(HasSubstr(path), HasSubstr("is not a regular file")));
  }
}

TEST(LoadEmbedderTest, ADirectoryOfEachFamilyGivesVectors) {
  for (const TinyModel& model : {TinyModel(), TinyBert()}) {
    SCOPED_TRACE(FamilyName(model.family));
    const auto embedder = Load(MakeTinyModelDir(model));
    ASSERT_TRUE(embedder.ok()) << embedder.status();
    const ModelInfo& info = (*embedder)->info();
    EXPECT_EQ(info.config.family, model.family);
    EXPECT_EQ(info.weight_type, "float32");
    EXPECT_GT(info.num_parameters, 0);
    EXPECT_EQ(info.weight_bytes, 4 * info.num_parameters);
    EXPECT_EQ(info.default_dimensions, model.hidden_size);
    const absl::StatusOr<Embedding> result = EmbedText(embedder->get(), "hello world");
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->vector.data.size(), 4u * model.hidden_size);
    EXPECT_GE(result->token_count, 2);
  }
}

TEST(LoadEmbedderTest, TheNameIsTheDirectorysUnlessGiven) {
  const std::string dir = TestDir("some-model");
  ASSERT_TRUE(WriteTinyModel(TinyModel(), dir).ok());
  const std::string name = std::filesystem::path(dir).filename().string();
  EXPECT_EQ((*Load(dir))->info().name, name);
  EXPECT_EQ((*Load(dir + "/"))->info().name, name);
  EXPECT_EQ((*Load(dir + "/."))->info().name, name);
  Embedder::Options options;
  options.name = "other";
  EXPECT_EQ((*Load(dir, options))->info().name, "other");
}

TEST(LoadEmbedderTest, TheSpaceFollowsTheWeightsNotTheirLayout) {
  const std::string space = Space(TinyModel());
  EXPECT_EQ(Space({.shards = 3}), space);
  EXPECT_NE(Space({.seed = 2}), space);
  EXPECT_NE(Space({.dtype = DType::kBF16}), space);
}

TEST(LoadEmbedderTest, WeightTypesCarryTheirUsualNames) {
  EXPECT_EQ((*Load(MakeTinyModelDir({.dtype = DType::kBF16})))->info().weight_type, "bfloat16");
  EXPECT_EQ((*Load(MakeTinyModelDir({.dtype = DType::kF16})))->info().weight_type, "float16");
}

TEST(LoadEmbedderTest, ErrorsNameTheDirectoryOrTheFile) {
  absl::Status status = LoadError("/nonexistent/model");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("'/nonexistent/model'"));

  const std::string dir = MakeTinyModelDir(TinyModel());
  status = LoadError(dir + "/config.json");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("must be a directory"));

  for (const char* file : {"config.json", "tokenizer.json", "model.safetensors"}) {
    const std::string broken = MakeTinyModelDir(TinyModel());
    std::filesystem::remove(broken + "/" + file);
    status = LoadError(broken);
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << file;
    EXPECT_THAT(status.message(), HasSubstr(file));
  }

  const std::string broken = MakeTinyModelDir(TinyModel());
  WriteFile(broken + "/tokenizer.json", "{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}");
  status = LoadError(broken);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  EXPECT_THAT(status.message(), HasSubstr("tokenizer.json"));
  EXPECT_THAT(status.message(), HasSubstr("Unigram"));
}

TEST(LoadEmbedderTest, LimitsAreCheckedAgainstTheModel) {
  const std::string dir = MakeTinyModelDir({.max_positions = 512});
  Embedder::Options options;
  options.max_input_tokens = 513;
  EXPECT_THAT(LoadError(dir, options).message(), HasSubstr("513"));
  options.max_input_tokens = 64;
  options.max_batch_tokens = 63;
  EXPECT_THAT(LoadError(dir, options).message(), HasSubstr("63"));
  options.max_batch_tokens = 64;
  const auto embedder = Load(dir, options);
  ASSERT_TRUE(embedder.ok()) << embedder.status();
  EXPECT_EQ((*embedder)->info().max_input_tokens, 64);
}

}  // namespace
}  // namespace quiver
