#include "engine/model/model_shapes.h"

#include <cstdlib>
#include <string>
#include <utility>

#include "engine/model/model_tensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quiver {
namespace {

ModelConfig Shape(const std::string& name) {
  const absl::StatusOr<ModelConfig> config = NamedModelShape(name);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *config : ModelConfig();
}

TEST(ModelShapesTest, AnUnknownNameIsToldThoseThereAre) {
  const absl::Status status = NamedModelShape("qwen3-embedding-4B").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("qwen3-embedding-4b"));
}

// Sums from the models' cards and files.
TEST(ModelShapesTest, ParametersAreThoseOfThePublicModels) {
  const auto count = [](const std::string& name) {
    int64_t total = 0;
    for (const ModelTensor& tensor : ModelTensors(Shape(name))) total += tensor.num_elements();
    return total;
  };
  EXPECT_EQ(count("qwen3-embedding-0.6b"), 595'776'512);
  EXPECT_EQ(count("qwen3-embedding-4b"), 4'021'774'336);
  // MiniLM's 22,713,216 are these and a pooler, which sentence embeddings do not use.
  EXPECT_EQ(count("all-minilm-l6-v2"), 22'713'216 - (384 * 384 + 384));
  EXPECT_EQ(NumLinearParameters(Shape("qwen3-embedding-4b")), int64_t{36} * 100'925'440);
}

TEST(ModelShapesTest, ShapesAreWhatThePublicFilesSay) {
  const char* data = std::getenv("QUIVER_TEST_DATA");
  if (data == nullptr) GTEST_SKIP() << "QUIVER_TEST_DATA is not set";
  for (const auto& [name, folder] : {std::pair("qwen3-embedding-0.6b", "qwen3-embedding-0.6B"),
                                     std::pair("qwen3-embedding-4b", "qwen3-embedding-4B")}) {
    const absl::StatusOr<ModelConfig> config = LoadModelConfig(std::string(data) + "/" + folder);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(Shape(name), *config) << name;
  }
}

TEST(ModelShapesTest, MiniLmIsWhatTheDefaultModelSays) {
  const char* model = std::getenv("QUIVER_DEFAULT_MODEL");
  if (model == nullptr) GTEST_SKIP() << "QUIVER_DEFAULT_MODEL is not set";
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(model);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(Shape("all-minilm-l6-v2"), *config);
}

}  // namespace
}  // namespace quiver
