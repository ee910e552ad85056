// Loading the same checkpoint on the device and on the CPU.
#ifndef QUIVER_TESTS_ENGINE_RUN_CUDA_CUDA_RIG_H_
#define QUIVER_TESTS_ENGINE_RUN_CUDA_CUDA_RIG_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/run/backend.h"
#include "engine/run/cpu_backend.h"
#include "engine/run/cuda/cuda_backend.h"
#include "gtest/gtest.h"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {

// Skips its tests where there is no device.
class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    const absl::Status status = CheckCudaDevice(0);
    if (!status.ok()) GTEST_SKIP() << status.message();
  }
};

// Of the checkpoint, with its matrices quantized at load.
inline absl::StatusOr<ModelConfig> LoadQuantizedConfig(const std::string& dir,
                                                       QuantizationChoice quantization) {
  absl::StatusOr<ModelConfig> config = LoadModelConfig(dir);
  if (!config.ok()) return config;
  absl::StatusOr<QuantizationConfig> chosen = config->quantization_config.With(quantization);
  if (!chosen.ok()) return chosen.status();
  config->quantization_config = *std::move(chosen);
  return config;
}

inline absl::StatusOr<std::unique_ptr<Backend>> LoadCuda(
    const std::string& dir, CudaBackendOptions options = {},
    QuantizationChoice quantization = QuantizationChoice::kAuto) {
  absl::StatusOr<ModelConfig> config = LoadQuantizedConfig(dir, quantization);
  if (!config.ok()) return config.status();
  absl::StatusOr<std::unique_ptr<Weights>> weights = Weights::Open(dir);
  if (!weights.ok()) return weights.status();
  // One folder for the whole program: what one test measured the next ones find.
  static const std::string cache_dir = TestDir("cuda_cache");
  if (options.cuda.cache_dir.empty()) options.cuda.cache_dir = cache_dir;
  if (options.max_batch_tokens == 0) options.max_batch_tokens = 16384;
  return CreateCudaBackend(*config, weights->get(), options);
}

inline std::unique_ptr<Backend> MakeCuda(
    const std::string& dir, const CudaBackendOptions& options = {},
    QuantizationChoice quantization = QuantizationChoice::kAuto) {
  absl::StatusOr<std::unique_ptr<Backend>> backend = LoadCuda(dir, options, quantization);
  EXPECT_TRUE(backend.ok()) << backend.status();
  return backend.ok() ? *std::move(backend) : nullptr;
}

inline std::unique_ptr<Backend> MakeCpu(
    const std::string& dir, int max_batch_tokens = 16384,
    QuantizationChoice quantization = QuantizationChoice::kAuto) {
  const absl::StatusOr<ModelConfig> config = LoadQuantizedConfig(dir, quantization);
  EXPECT_TRUE(config.ok()) << config.status();
  absl::StatusOr<std::unique_ptr<Weights>> weights = Weights::Open(dir);
  EXPECT_TRUE(weights.ok()) << weights.status();
  if (!config.ok() || !weights.ok()) return nullptr;
  absl::StatusOr<std::unique_ptr<Backend>> backend =
      CreateCpuBackend(*config, *std::move(weights), {.max_batch_tokens = max_batch_tokens});
  EXPECT_TRUE(backend.ok()) << backend.status();
  return backend.ok() ? *std::move(backend) : nullptr;
}

// One of each kind: causal with last-token and mean pooling, heads of 64 and 128; full with mean
// and CLS pooling, heads of 32 and 64.
inline std::vector<TinyModel> CudaModels() {
  TinyModel qwen3;
  qwen3.head_dim = 128;
  qwen3.dtype = DType::kBF16;
  TinyModel narrow;
  narrow.head_dim = 64;
  narrow.pooling = "mean_tokens";
  TinyModel bert = TinyBert();
  bert.num_heads = 2;
  TinyModel wide = TinyBert();
  wide.hidden_size = 128;
  wide.num_heads = 2;
  wide.pooling = "cls_token";
  wide.dtype = DType::kF16;
  return {qwen3, narrow, bert, wide};
}

}  // namespace quiver

#endif  // QUIVER_TESTS_ENGINE_RUN_CUDA_CUDA_RIG_H_
