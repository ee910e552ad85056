// What is foretold of an H200 against what was measured on one (docs/gpu.md).
#include <string>

#include "engine/model/model_shapes.h"
#include "engine/run/cuda/cuda_backend.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quiver {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kH200Bytes = 140'000 * kMiB;

CudaBackendOptions Options(int int4_group, bool fp8) {
  CudaBackendOptions options;
  options.cuda.dummy_weights = true;
  options.cuda.dummy_int4_group = int4_group;
  options.cuda.dummy_fp8 = fp8;
  return options;
}

int64_t MiBOf(const MemoryForecast& forecast, const std::string& purpose) {
  for (const MemoryUse& use : forecast.memory) {
    if (use.purpose == purpose) return use.bytes / kMiB;
  }
  return -1;
}

// MiB.
void ExpectMeasured(const CudaBackendOptions& options, int64_t weights, int64_t activations) {
  const ModelConfig config = *NamedModelShape("qwen3-embedding-4b");
  const auto forecast = ForecastCudaMemory(config, nullptr, options, kH200Bytes);
  ASSERT_TRUE(forecast.ok()) << forecast.status();
  EXPECT_EQ(forecast->max_sequence_tokens, 32768);
  EXPECT_EQ(forecast->max_batch_tokens, 32768);
  EXPECT_NEAR(MiBOf(*forecast, "weights"), weights, 1);
  // Two workspaces of 32 MiB.
  EXPECT_NEAR(MiBOf(*forecast, "activations and workspaces"), activations + 64, 2);
  EXPECT_EQ(MiBOf(*forecast, "context"), 276);
}

TEST(MemoryForecastTest, Bf16IsAsMeasured) { ExpectMeasured(Options(0, false), 7687, 1228); }

TEST(MemoryForecastTest, Fp8IsAsMeasured) { ExpectMeasured(Options(0, true), 4227, 1260); }

TEST(MemoryForecastTest, Int4ByFp8IsAsMeasured) {
  CudaBackendOptions options = Options(128, false);
  options.cuda.activation = ActivationType::kFp8;
  ExpectMeasured(options, 2602, 1372);
}

TEST(MemoryForecastTest, ABudgetThatIsTooSmallSaysWhatIsTaken) {
  const ModelConfig config = *NamedModelShape("qwen3-embedding-4b");
  const auto forecast = ForecastCudaMemory(config, nullptr, Options(0, false), 4096 * kMiB);
  EXPECT_EQ(forecast.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(forecast.status().message()), ::testing::HasSubstr("weights 768"));
}

TEST(MemoryForecastTest, Int4TakesTheWholeContextWithin4200Megabytes) {
  CudaBackendOptions options = Options(128, false);
  options.cuda.memory_budget.bytes = 4'200'000'000;
  const ModelConfig config = *NamedModelShape("qwen3-embedding-4b");
  const auto forecast = ForecastCudaMemory(config, nullptr, options, kH200Bytes);
  ASSERT_TRUE(forecast.ok()) << forecast.status();
  EXPECT_EQ(forecast->max_sequence_tokens, 32768);
  int64_t all = 0;
  for (const MemoryUse& use : forecast->memory) all += use.bytes;
  EXPECT_LE(all, 4'200'000'000);
}

}  // namespace
}  // namespace quiver
