#include "engine/run/create_backend.h"

#include <memory>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {
namespace {

using testing::HasSubstr;

absl::StatusOr<std::unique_ptr<Backend>> Create(const BackendOptions& options) {
  TinyModel model = TinyBert();
  // Heads of a size that both backends run.
  model.num_heads = 2;
  const std::string dir = MakeTinyModelDir(model);
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(dir);
  EXPECT_TRUE(config.ok()) << config.status();
  absl::StatusOr<std::unique_ptr<Weights>> weights = Weights::Open(dir);
  EXPECT_TRUE(weights.ok()) << weights.status();
  return CreateBackend(*config, *std::move(weights), options);
}

TEST(CreateBackendTest, CpuIsTakenWhereItIsAskedFor) {
  const auto backend = Create({.device = {DeviceChoice::Kind::kCpu, 0}, .num_threads = 1});
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_THAT((*backend)->info().device, HasSubstr("cpu"));
  EXPECT_EQ((*backend)->info().arithmetic, "f32");
}

TEST(CreateBackendTest, AMissingCudaDeviceIsAnErrorThatSaysWhatIsMissing) {
  const auto backend = Create({.device = {DeviceChoice::Kind::kCuda, 99}});
  EXPECT_EQ(backend.status().code(), BuiltWithCuda() ? absl::StatusCode::kFailedPrecondition
                                                     : absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(backend.status().message()),
              HasSubstr(BuiltWithCuda() ? "CUDA device" : "built without CUDA"));
}

TEST(CreateBackendTest, RandomWeightsAreRefusedOnTheCpu) {
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(MakeTinyModelDir(TinyBert()));
  ASSERT_TRUE(config.ok());
  BackendOptions options;
  options.device.kind = DeviceChoice::Kind::kCpu;
  options.cuda.dummy_weights = true;
  EXPECT_EQ(CreateBackend(*config, nullptr, options).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace quiver
