// What the CUDA backend promises beside right vectors.
#include "engine/run/cuda/cuda_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/run/cuda/device_memory.h"
#include "gmock/gmock.h"
#include "tests/engine/run/cuda/cuda_rig.h"
#include "tests/testing/run_backend.h"

namespace quiver {
namespace {

using testing::AllOf;
using testing::Each;
using testing::Gt;
using testing::HasSubstr;

using CudaBackendTest = CudaTest;

TEST_F(CudaBackendTest, InfoHoldsTheLimitsAndTheMemory) {
  const std::string dir = MakeTinyModelDir(CudaModels()[0]);
  CudaBackendOptions options = {.max_batch_tokens = 5000, .max_input_tokens = 3000};
  options.cuda.dtype = ComputeType::kFloat16;
  const std::unique_ptr<Backend> backend = MakeCuda(dir, options);
  ASSERT_NE(backend, nullptr);
  const BackendInfo& info = backend->info();
  EXPECT_EQ(info.max_batch_tokens, 5000);
  EXPECT_EQ(info.max_sequence_tokens, 3000);
  EXPECT_EQ(info.max_second_batch_tokens, 4096);
  EXPECT_EQ(info.arithmetic, "f16");
  EXPECT_THAT(info.device, AllOf(HasSubstr("cuda:0"), HasSubstr("sm_")));
  ASSERT_EQ(info.memory.size(), 6u);
  for (const MemoryUse& use : info.memory) EXPECT_GE(use.bytes, 0) << use.purpose;
}

TEST_F(CudaBackendTest, PurposesSumToWhatTheDriverCounts) {
  const absl::StatusOr<DeviceUse> before = CurrentDeviceUse();
  ASSERT_TRUE(before.ok());
  const std::unique_ptr<Backend> backend = MakeCuda(MakeTinyModelDir(CudaModels()[0]));
  ASSERT_NE(backend, nullptr);
  const absl::StatusOr<DeviceUse> after = CurrentDeviceUse();
  ASSERT_TRUE(after.ok());
  int64_t sum = 0;
  for (const MemoryUse& use : backend->info().memory) {
    // This process had one before.
    if (use.purpose != "context") sum += use.bytes;
  }
  const double taken = static_cast<double>(after->used_bytes - before->used_bytes);
  EXPECT_NEAR(static_cast<double>(sum), taken, 0.03 * taken);
}

TEST_F(CudaBackendTest, NothingIsAllocatedAfterTheWarmUp) {
  const TinyModel model = CudaModels()[0];
  const std::unique_ptr<Backend> backend = MakeCuda(MakeTinyModelDir(model));
  ASSERT_NE(backend, nullptr);
  const absl::StatusOr<DeviceUse> before = CurrentDeviceUse();
  ASSERT_TRUE(before.ok());
  for (const int length : {1, 30, 100, 250, 700, 1500, 4000}) {
    for (const int count : {1, 2, 4}) {
      const std::vector<std::vector<TokenId>> sequences(static_cast<size_t>(count),
                                                        RandomIds(1, length, length, 1400));
      RunTogether(backend.get(), sequences, model.hidden_size);
    }
  }
  const absl::StatusOr<DeviceUse> after = CurrentDeviceUse();
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->used_bytes, before->used_bytes);
}

TEST_F(CudaBackendTest, ABudgetIsKept) {
  const absl::StatusOr<DeviceUse> before = CurrentDeviceUse();
  ASSERT_TRUE(before.ok());
  CudaBackendOptions options;
  options.cuda.memory_budget.bytes = int64_t{2} << 30;
  const std::unique_ptr<Backend> backend = MakeCuda(MakeTinyModelDir(CudaModels()[0]), options);
  ASSERT_NE(backend, nullptr);
  int64_t sum = 0;
  for (const MemoryUse& use : backend->info().memory) sum += use.bytes;
  EXPECT_LE(sum, int64_t{2} << 30);
}

TEST_F(CudaBackendTest, ABudgetThatIsTooSmallIsRefusedWithWhatWouldFit) {
  CudaBackendOptions options;
  options.cuda.memory_budget.bytes = int64_t{300} << 20;
  const absl::Status status = LoadCuda(MakeTinyModelDir(CudaModels()[0]), options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("--memory-budget"), HasSubstr("300MiB"), HasSubstr("would fit")));
}

TEST_F(CudaBackendTest, OptionsOutOfRangeAreNamed) {
  const std::string dir = MakeTinyModelDir(CudaModels()[2]);
  EXPECT_THAT(LoadCuda(dir, {.max_input_tokens = 513}).status().ToString(),
              AllOf(HasSubstr("max_input_tokens"), HasSubstr("512"), HasSubstr("513")));
  EXPECT_THAT(LoadCuda(dir, {.max_batch_tokens = 99, .max_input_tokens = 100}).status().ToString(),
              AllOf(HasSubstr("max_batch_tokens"), HasSubstr("100"), HasSubstr("99")));
}

TEST_F(CudaBackendTest, AThirdPassAndASecondLargeOneAreRefused) {
  const std::unique_ptr<Backend> backend = MakeCuda(MakeTinyModelDir(CudaModels()[0]));
  ASSERT_NE(backend, nullptr);
  const int second_tokens = backend->info().max_second_batch_tokens;
  PackedBatch small;
  small.Append({1, 2, 3}, {.dimensions = 64});
  PackedBatch large;
  for (int i = 0; i < 3; ++i) {
    large.Append(std::vector<TokenId>(static_cast<size_t>(second_tokens) / 2, 1),
                 {.dimensions = 64});
  }
  PackedBatch medium;
  medium.Append(std::vector<TokenId>(static_cast<size_t>(second_tokens) / 2, 1),
                {.dimensions = 64});
  // In whatever order small ones come and go, there is room for one more.
  auto a = backend->Begin(large);
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ(backend->Begin(large).status().code(), absl::StatusCode::kFailedPrecondition);
  auto b = backend->Begin(medium);
  ASSERT_TRUE(b.ok()) << b.status();
  EXPECT_EQ(backend->Begin(small).status().code(), absl::StatusCode::kFailedPrecondition);
  a->reset();
  auto c = backend->Begin(small);
  ASSERT_TRUE(c.ok()) << c.status();
  b->reset();
  auto d = backend->Begin(medium);
  ASSERT_TRUE(d.ok()) << d.status();
  c->reset();
  d->reset();
  EXPECT_TRUE(backend->Begin(large).ok());
}

TEST_F(CudaBackendTest, APassThatIsGivenUpLeavesTheRegionToTheNext) {
  const TinyModel model = CudaModels()[0];
  const std::unique_ptr<Backend> backend = MakeCuda(MakeTinyModelDir(model));
  ASSERT_NE(backend, nullptr);
  const std::vector<std::vector<TokenId>> sequences(20, RandomIds(5, 0, 300, 1400));
  const auto expected = RunTogether(backend.get(), sequences, model.hidden_size);
  for (int steps = 0; steps < 3; ++steps) {
    PackedBatch batch;
    for (int i = 0; i < 20; ++i) {
      batch.Append(RandomIds(6, i, 500, 1400), {.dimensions = model.hidden_size});
    }
    auto pass = backend->Begin(std::move(batch));
    ASSERT_TRUE(pass.ok());
    for (int i = 0; i < steps; ++i) ASSERT_TRUE((*pass)->Run(0).ok());
    pass->reset();
    EXPECT_EQ(RunTogether(backend.get(), sequences, model.hidden_size), expected);
  }
}

TEST_F(CudaBackendTest, StepsAreTimedByTheDeviceAndAGraphHasNone) {
  const std::unique_ptr<Backend> backend = MakeCuda(MakeTinyModelDir(CudaModels()[0]));
  ASSERT_NE(backend, nullptr);
  for (const int length : {3, 4000}) {
    PackedBatch batch;
    batch.Append(RandomIds(7, length, length, 1400), {.dimensions = 64});
    const absl::StatusOr<std::unique_ptr<Pass>> pass = backend->Begin(std::move(batch));
    ASSERT_TRUE(pass.ok()) << pass.status();
    const absl::Time start = absl::Now();
    size_t runs = 0;
    for (bool done = false; !done;) {
      const absl::StatusOr<bool> ran = (*pass)->Run(0);
      ASSERT_TRUE(ran.ok()) << ran.status();
      done = *ran;
      ++runs;
    }
    const double wall_ms = absl::ToDoubleMilliseconds(absl::Now() - start);
    const std::vector<double> steps = (*pass)->StepMs();
    if (length == 3) {
      EXPECT_TRUE(steps.empty());
      continue;
    }
    EXPECT_EQ(steps.size(), runs);
    EXPECT_THAT(steps, Each(Gt(0.0)));
    EXPECT_LE(std::accumulate(steps.begin(), steps.end(), 0.0), wall_ms);
  }
}

TEST_F(CudaBackendTest, OutputsFollowTheirSpecifications) {
  const std::unique_ptr<Backend> backend = MakeCuda(MakeTinyModelDir(CudaModels()[0]));
  ASSERT_NE(backend, nullptr);
  ExpectOutputsFollowTheirSpecifications(backend.get(), 1e-5f);
}

// Rewrites elements of tensor `name` of an F32 checkpoint of one file, from `index` on.
void Poke(const std::string& dir, const std::string& name, size_t index,
          const std::vector<float>& values) {
  const std::string path = dir + "/model.safetensors";
  const absl::StatusOr<std::unique_ptr<Weights>> weights = Weights::Open(dir);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const TensorView& tensor = (*weights)->tensors().at(name);
  // The file ends with the last tensor.
  const std::byte* end = nullptr;
  for (const auto& entry : (*weights)->tensors()) {
    end = std::max(end, entry.second.data + entry.second.size_bytes);
  }
  std::string bytes = ReadFile(path);
  const size_t from_end = static_cast<size_t>(end - tensor.data) - index * sizeof(float);
  std::memcpy(&bytes[bytes.size() - from_end], values.data(), values.size() * sizeof(float));
  WriteFile(path, bytes);
}

TEST_F(CudaBackendTest, AnOverflowOfFloat16FailsItsSequenceAloneAndIsNoneInBfloat16) {
  TinyModel model;
  model.head_dim = 64;
  const std::string dir = MakeTinyModelDir(model);
  const auto width = static_cast<size_t>(model.hidden_size);
  // Token 77 is all in one dimension, which its norm makes 8: times this, more than 65504.
  std::vector<float> row(width);
  row[3] = 100;
  Poke(dir, "model.embed_tokens.weight", 77 * width, row);
  Poke(dir, "model.layers.0.input_layernorm.weight", 3, {1});
  Poke(dir, "model.layers.0.post_attention_layernorm.weight", 3, {1});
  Poke(dir, "model.layers.0.mlp.up_proj.weight", 3, {12'000});

  const std::vector<std::vector<TokenId>> healthy = {{1, 2, 3}, {4, 5}};
  for (const ComputeType type : {ComputeType::kFloat16, ComputeType::kBfloat16}) {
    CudaBackendOptions options;
    options.cuda.dtype = type;
    const std::unique_ptr<Backend> backend = MakeCuda(dir, options);
    ASSERT_NE(backend, nullptr);
    PackedBatch batch;
    batch.Append(healthy[0], {.dimensions = model.hidden_size});
    batch.Append({9, 9, 77}, {.dimensions = model.hidden_size});
    batch.Append(healthy[1], {.dimensions = model.hidden_size});
    auto pass = backend->Begin(std::move(batch));
    ASSERT_TRUE(pass.ok() && *(*pass)->Run(kWholePass));
    const auto results = (*pass)->Finish();
    EXPECT_TRUE(results[0].ok()) << results[0].status();
    EXPECT_TRUE(results[2].ok()) << results[2].status();
    if (type == ComputeType::kBfloat16) {
      EXPECT_TRUE(results[1].ok()) << results[1].status();
    } else {
      EXPECT_EQ(results[1].status().code(), absl::StatusCode::kInternal);
      EXPECT_THAT(std::string(results[1].status().message()), HasSubstr("not finite"));
    }
  }
}

TEST_F(CudaBackendTest, RandomWeightsRunWithoutACheckpoint) {
  for (const TinyModel& model : CudaModels()) {
    const absl::StatusOr<ModelConfig> config = LoadModelConfig(MakeTinyModelDir(model));
    ASSERT_TRUE(config.ok());
    CudaBackendOptions options = {.max_batch_tokens = 4096};
    options.cuda.dummy_weights = true;
    options.cuda.cache_dir = TestDir("cuda_dummy_" + model.pooling);
    const auto backend = CreateCudaBackend(*config, nullptr, options);
    ASSERT_TRUE(backend.ok()) << backend.status();
    const auto vectors =
        RunTogether(backend->get(), {{1, 2, 3}, {1, 2, 3}, {4, 5}}, model.hidden_size);
    EXPECT_GE(Cosine(vectors[0], vectors[1]), 0.99999);
    EXPECT_LT(Cosine(vectors[0], vectors[2]), 0.999);
  }
}

TEST_F(CudaBackendTest, ASecondStartFindsTheMeasuredAlgorithms) {
  const TinyModel model = CudaModels()[0];
  const std::string dir = MakeTinyModelDir(model);
  CudaBackendOptions options;
  options.cuda.cache_dir = TestDir("cuda_cache_twice");
  const std::vector<std::vector<TokenId>> sequences = {RandomIds(1, 0, 100, 1400)};
  const auto first = RunTogether(MakeCuda(dir, options).get(), sequences, model.hidden_size);
  const auto second = RunTogether(MakeCuda(dir, options).get(), sequences, model.hidden_size);
  // The same algorithms sum in the same order.
  EXPECT_EQ(first, second);
}

}  // namespace
}  // namespace quiver
