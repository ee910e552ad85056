#include "engine/run/cpu_backend.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/run_backend.h"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {
namespace {

using testing::AllOf;
using testing::HasSubstr;

absl::StatusOr<std::unique_ptr<Backend>> LoadBackend(const std::string& dir,
                                                     const CpuBackendOptions& options) {
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(dir);
  if (!config.ok()) return config.status();
  absl::StatusOr<std::unique_ptr<Weights>> weights = Weights::Open(dir);
  if (!weights.ok()) return weights.status();
  return CreateCpuBackend(*config, *std::move(weights), options);
}

std::unique_ptr<Backend> MakeBackend(const TinyModel& model,
                                     const CpuBackendOptions& options = {}) {
  absl::StatusOr<std::unique_ptr<Backend>> backend = LoadBackend(MakeTinyModelDir(model), options);
  EXPECT_TRUE(backend.ok()) << backend.status();
  return backend.ok() ? *std::move(backend) : nullptr;
}

std::vector<TinyModel> Models() {
  TinyModel causal_mean;
  causal_mean.pooling = "mean_tokens";
  TinyModel bert_cls = TinyBert();
  bert_cls.pooling = "cls_token";
  TinyModel bert_last = TinyBert();
  bert_last.pooling = "lasttoken";
  bert_last.dtype = DType::kBF16;
  return {TinyModel(), TinyBert(), causal_mean, bert_cls, bert_last};
}

std::vector<std::vector<TokenId>> RandomSequences(std::mt19937* rng, int count, int max_length) {
  std::vector<std::vector<TokenId>> sequences;
  for (int i = 0; i < count; ++i) {
    // Short ones are as likely as long ones.
    const double length = std::exp(std::uniform_real_distribution<>(0, std::log(max_length))(*rng));
    sequences.push_back(RandomIds((*rng)(), i, static_cast<int>(length), 1400));
  }
  return sequences;
}

TEST(CpuBackendTest, VectorsAreBitIdenticalWhateverSharesTheBatch) {
  std::mt19937 rng(7);
  for (const TinyModel& model : Models()) {
    const std::unique_ptr<Backend> backend = MakeBackend(model, {.num_threads = 3});
    ASSERT_NE(backend, nullptr);
    for (int round = 0; round < 3; ++round) {
      const std::vector<std::vector<TokenId>> sequences = RandomSequences(&rng, 25, 300);
      EXPECT_EQ(RunTogether(backend.get(), sequences, model.hidden_size),
                RunAlone(backend.get(), sequences, model.hidden_size))
          << model.pooling;
    }
  }
}

TEST(CpuBackendTest, VectorsAreBitIdenticalHoweverManyThreadsRun) {
  std::mt19937 rng(8);
  for (const TinyModel& model : Models()) {
    const std::vector<std::vector<TokenId>> sequences = RandomSequences(&rng, 20, 300);
    std::vector<std::vector<float>> expected;
    for (const int threads : {1, 2, 5}) {
      const std::unique_ptr<Backend> backend = MakeBackend(model, {.num_threads = threads});
      ASSERT_NE(backend, nullptr);
      const auto vectors = RunTogether(backend.get(), sequences, model.hidden_size);
      if (expected.empty()) expected = vectors;
      EXPECT_EQ(vectors, expected) << threads << " threads";
    }
  }
}

TEST(CpuBackendTest, TwoPassesInterleaveStepByStepWithoutMixing) {
  std::mt19937 rng(9);
  for (const TinyModel& model : Models()) {
    const std::unique_ptr<Backend> backend = MakeBackend(model);
    ASSERT_NE(backend, nullptr);
    const std::vector<std::vector<TokenId>> bulk = RandomSequences(&rng, 30, 400);
    const std::vector<std::vector<TokenId>> query = RandomSequences(&rng, 2, 20);
    const auto expected_bulk = RunAlone(backend.get(), bulk, model.hidden_size);
    const auto expected_query = RunAlone(backend.get(), query, model.hidden_size);

    PackedBatch bulk_batch;
    for (const auto& ids : bulk) bulk_batch.Append(ids, {.dimensions = model.hidden_size});
    auto bulk_pass = backend->Begin(std::move(bulk_batch));
    ASSERT_TRUE(bulk_pass.ok()) << bulk_pass.status();
    int queries = 0;
    while (true) {
      const absl::StatusOr<bool> done = (*bulk_pass)->Run(0);
      ASSERT_TRUE(done.ok()) << done.status();
      if (*done) break;
      EXPECT_EQ(RunTogether(backend.get(), query, model.hidden_size), expected_query);
      ++queries;
    }
    EXPECT_GT(queries, 3 * model.num_layers);
    EXPECT_EQ(FinishPass(bulk_pass->get()), expected_bulk);
  }
}

TEST(CpuBackendTest, AReusedPrefixDoesNotChangeABit) {
  std::mt19937 rng(10);
  TinyModel model;
  model.num_layers = 3;
  for (const int length : {8, 30, 128, 150}) {
    const std::unique_ptr<Backend> backend =
        MakeBackend(model, {.num_threads = 2, .prefix_cache_bytes = 1 << 20});
    ASSERT_NE(backend, nullptr);
    const std::vector<TokenId> prefix = RandomIds(rng(), 0, length, 1400);
    std::vector<std::vector<TokenId>> sequences = RandomSequences(&rng, 12, 100);
    // Each begins with the prefix, or with its first part alone.
    std::vector<int32_t> shared;
    for (size_t i = 0; i < sequences.size(); ++i) {
      shared.push_back(i % 3 == 0 ? length / 2 : length);
      sequences[i].insert(sequences[i].begin(), prefix.begin(), prefix.begin() + shared[i]);
    }
    const auto expected = RunTogether(backend.get(), sequences, model.hidden_size);

    constexpr int32_t kRow = 3;
    PackedBatch first;
    first.Append({1, 2, 3}, {.dimensions = model.hidden_size});
    first.Append(sequences[1], {.dimensions = model.hidden_size},
                 {.row = kRow, .length = length, .store = true});
    auto pass = backend->Begin(std::move(first));
    ASSERT_TRUE(pass.ok()) << pass.status();
    EXPECT_EQ(FinishPass(pass->get())[1], expected[1]);

    PackedBatch batch;
    for (size_t i = 0; i < sequences.size(); ++i) {
      batch.Append(absl::MakeConstSpan(sequences[i]).subspan(static_cast<size_t>(shared[i])),
                   {.dimensions = model.hidden_size}, {.row = kRow, .length = shared[i]});
    }
    pass = backend->Begin(std::move(batch));
    ASSERT_TRUE(pass.ok()) << pass.status();
    EXPECT_EQ(FinishPass(pass->get(), 0), expected) << length;
  }
}

TEST(CpuBackendTest, PrefixesAreKeptOfDecodersThatPoolTheLastToken) {
  for (const TinyModel& model : Models()) {
    const std::unique_ptr<Backend> backend = MakeBackend(model, {.prefix_cache_bytes = 1 << 20});
    ASSERT_NE(backend, nullptr);
    const bool kept = model.family == Family::kQwen3 && model.pooling == "lasttoken";
    // Two layers' keys and values of two heads of 32, four bytes each.
    EXPECT_EQ(backend->info().prefix_tokens, kept ? (1 << 20) / (2 * 2 * 64 * 4) : 0);
  }
}

TEST(CpuBackendTest, AThirdPassIsRefusedUntilOneEnds) {
  const std::unique_ptr<Backend> backend = MakeBackend(TinyModel());
  ASSERT_NE(backend, nullptr);
  PackedBatch batch;
  batch.Append({1, 2, 3}, {.dimensions = 64});
  auto first = backend->Begin(batch);
  auto second = backend->Begin(batch);
  EXPECT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(backend->Begin(batch).status().code(), absl::StatusCode::kFailedPrecondition);
  first->reset();
  EXPECT_TRUE(backend->Begin(batch).ok());
}

TEST(CpuBackendTest, OutputsFollowTheirSpecifications) {
  const std::unique_ptr<Backend> backend = MakeBackend(TinyModel());
  ASSERT_NE(backend, nullptr);
  ExpectOutputsFollowTheirSpecifications(backend.get(), 1e-6f);
}

// Rewrites the value of tensor `name`, at element `index`.
void Poke(const std::string& dir, const std::string& name, size_t index, float value) {
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
  std::memcpy(&bytes[bytes.size() - from_end], &value, sizeof(value));
  WriteFile(path, bytes);
}

TEST(CpuBackendTest, ANonFiniteVectorFailsItsSequenceAlone) {
  for (TinyModel model : {TinyModel(), TinyBert()}) {
    const std::string dir = MakeTinyModelDir(model);
    const bool bert = model.family == Family::kBert;
    Poke(dir, bert ? "bert.embeddings.word_embeddings.weight" : "model.embed_tokens.weight",
         static_cast<size_t>(77 * model.hidden_size + 3), std::numeric_limits<float>::quiet_NaN());
    const auto backend = LoadBackend(dir, {});
    ASSERT_TRUE(backend.ok()) << backend.status();
    const std::vector<std::vector<TokenId>> healthy = {{1, 2, 3}, {4, 5}};
    const auto expected = RunAlone(backend->get(), healthy, model.hidden_size);

    PackedBatch batch;
    batch.Append(healthy[0], {.dimensions = model.hidden_size});
    batch.Append({9, 77, 9}, {.dimensions = model.hidden_size});
    batch.Append(healthy[1], {.dimensions = model.hidden_size});
    auto pass = (*backend)->Begin(std::move(batch));
    ASSERT_TRUE(pass.ok() && *(*pass)->Run(kWholePass));
    const auto results = (*pass)->Finish();
    EXPECT_EQ(results[1].status().code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(results[1].status().message()), HasSubstr("not finite"));
    for (const int i : {0, 2}) {
      ASSERT_TRUE(results[i].ok()) << results[i].status();
      EXPECT_EQ(
          std::memcmp(results[i]->data.data(), expected[i / 2].data(), results[i]->data.size()), 0);
    }
  }
}

TEST(CpuBackendTest, AZeroVectorIsAnError) {
  const TinyModel model;
  const std::string dir = MakeTinyModelDir(model);
  for (int i = 0; i < model.hidden_size; ++i) Poke(dir, "model.norm.weight", i, 0.0f);
  const auto backend = LoadBackend(dir, {});
  ASSERT_TRUE(backend.ok()) << backend.status();
  PackedBatch batch;
  batch.Append({1, 2, 3}, {.dimensions = model.hidden_size});
  auto pass = (*backend)->Begin(std::move(batch));
  ASSERT_TRUE(pass.ok() && *(*pass)->Run(kWholePass));
  EXPECT_EQ((*pass)->Finish()[0].status().code(), absl::StatusCode::kInternal);
}

TEST(CpuBackendTest, InfoHoldsTheLimits) {
  const std::unique_ptr<Backend> backend =
      MakeBackend(TinyBert(), {.num_threads = 2, .max_input_tokens = 100});
  ASSERT_NE(backend, nullptr);
  EXPECT_EQ(backend->info().max_sequence_tokens, 100);
  EXPECT_EQ(backend->info().max_batch_tokens, 4096);
  EXPECT_EQ(backend->info().arithmetic, "f32");
  EXPECT_THAT(backend->info().device, AllOf(HasSubstr("cpu"), HasSubstr("2 threads")));
}

std::string ErrorOf(const std::string& dir, const CpuBackendOptions& options = {}) {
  return LoadBackend(dir, options).status().ToString();
}

TEST(CpuBackendTest, OptionsOutOfRangeAreNamed) {
  const std::string dir = MakeTinyModelDir(TinyBert());
  EXPECT_THAT(ErrorOf(dir, {.max_input_tokens = 513}),
              AllOf(HasSubstr("max_input_tokens"), HasSubstr("512"), HasSubstr("513")));
  EXPECT_THAT(ErrorOf(dir, {.max_batch_tokens = 511}),
              AllOf(HasSubstr("max_batch_tokens"), HasSubstr("512"), HasSubstr("511")));
  EXPECT_THAT(ErrorOf(dir, {.num_threads = -1}), AllOf(HasSubstr("num_threads"), HasSubstr("-1")));
}

TEST(CpuBackendTest, ATensorOfAnotherShapeIsNamedWithBothShapes) {
  TinyModel model;
  const std::string dir = MakeTinyModelDir(model);
  model.intermediate_size = 104;
  const std::string other = MakeTinyModelDir(model);
  WriteFile(dir + "/config.json", ReadFile(other + "/config.json"));
  EXPECT_THAT(ErrorOf(dir),
              AllOf(HasSubstr("INVALID_ARGUMENT"), HasSubstr("gate_proj"),
                    HasSubstr("model.safetensors"), HasSubstr("[104, 64]"), HasSubstr("[96, 64]")));
}

TEST(CpuBackendTest, AMissingTensorIsNamed) {
  TinyModel model;
  const std::string dir = MakeTinyModelDir(model);
  model.num_layers = 3;
  const std::string other = MakeTinyModelDir(model);
  WriteFile(dir + "/config.json", ReadFile(other + "/config.json"));
  EXPECT_THAT(ErrorOf(dir), AllOf(HasSubstr("NOT_FOUND"), HasSubstr("model.layers.2."),
                                  HasSubstr("model.safetensors")));
}

TEST(CpuBackendTest, ACheckpointOfAnotherFamilyIsRefused) {
  const std::string dir = MakeTinyModelDir(TinyModel());
  WriteFile(dir + "/model.safetensors",
            ReadFile(MakeTinyModelDir(TinyBert()) + "/model.safetensors"));
  EXPECT_THAT(ErrorOf(dir), AllOf(HasSubstr("NOT_FOUND"), HasSubstr("model.embed_tokens.weight")));
}

TEST(CpuBackendTest, WeightsOfAnotherTypeAreNamed) {
  const std::string dir = MakeTinyModelDir(TinyModel());
  std::string bytes = ReadFile(dir + "/model.safetensors");
  const size_t at = bytes.find("\"F32\"", bytes.find("model.norm.weight"));
  bytes.replace(at, 5, "\"I32\"");
  WriteFile(dir + "/model.safetensors", bytes);
  EXPECT_THAT(ErrorOf(dir),
              AllOf(HasSubstr("UNIMPLEMENTED"), HasSubstr("model.norm.weight"), HasSubstr("I32")));
}

TEST(CpuBackendTest, QuantizationThatIsNotRunIsRefusedByName) {
  const std::string dir = MakeTinyModelDir(TinyModel());
  nlohmann::json config = nlohmann::json::parse(ReadFile(dir + "/config.json"));
  config["quantization_config"] = {{"quant_method", "bitsandbytes"}};
  WriteFile(dir + "/config.json", config.dump());
  EXPECT_THAT(ErrorOf(dir), AllOf(HasSubstr("UNIMPLEMENTED"), HasSubstr("quantization_config"),
                                  HasSubstr("bitsandbytes")));
}

}  // namespace
}  // namespace quiver
