#include "tests/testing/fake_backend.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace quiver {
namespace {

PackedBatch Batch(std::vector<std::vector<TokenId>> sequences, int dimensions = 8) {
  PackedBatch batch;
  for (const auto& ids : sequences) batch.Append(ids, OutputSpec{.dimensions = dimensions});
  return batch;
}

std::vector<float> Floats(const EncodedVector& vector) {
  std::vector<float> out(vector.data.size() / 4);
  std::memcpy(out.data(), vector.data.data(), vector.data.size());
  return out;
}

TEST(FakeBackendTest, VectorsDependOnTheSequencesOwnIdsAlone) {
  FakeBackend backend({});
  auto alone = backend.Begin(Batch({{1, 2, 3}}));
  ASSERT_TRUE(*(*alone)->Run(0));
  auto among = backend.Begin(Batch({{9}, {1, 2, 3}, {3, 2, 1}}));
  ASSERT_TRUE(*(*among)->Run(0));
  const auto a = (*alone)->Finish();
  const auto b = (*among)->Finish();
  EXPECT_EQ(a[0]->data, b[1]->data);
  EXPECT_NE(b[1]->data, b[2]->data);
  EXPECT_EQ(a[0]->data, FakeVector({1, 2, 3}, OutputSpec{.dimensions = 8}).data);
}

TEST(FakeBackendTest, VectorsFollowTheirSpec) {
  double sum = 0;
  for (float v : Floats(FakeVector({5, 6}, {.dimensions = 32}))) sum += v * v;
  EXPECT_NEAR(sum, 1.0, 1e-5);
  for (OutputType type : {OutputType::kFloat32, OutputType::kFloat16, OutputType::kBfloat16,
                          OutputType::kInt8, OutputType::kBinary}) {
    EXPECT_EQ(FakeVector({5, 6}, {.dimensions = 30, .type = type}).data.size(),
              OutputBytes(type, 30));
  }
  const auto whole = Floats(FakeVector({5, 6}, {.dimensions = 32, .normalize = false}));
  const auto cut = Floats(FakeVector({5, 6}, {.dimensions = 4, .normalize = false}));
  EXPECT_EQ(std::vector<float>(whole.begin(), whole.begin() + 4), cut);
}

TEST(FakeBackendTest, APassTakesItsFormulasTimeInSteps) {
  VirtualClock clock;
  FakeBackend backend(
      {.fixed_us = 100, .token_us = 10, .token_pair_us = 1, .step_us = 50, .clock = &clock});
  const absl::Time start = clock.Now();
  auto pass = backend.Begin(Batch({{1, 2}, {3}}));
  int runs = 1;
  while (!*(*pass)->Run(1)) ++runs;
  // 100 + 3 * 10 + (4 + 1) * 1
  EXPECT_EQ(clock.Now() - start, absl::Microseconds(135));
  EXPECT_EQ(runs, 3);
  (*pass)->Finish();
  EXPECT_EQ(backend.TokensRun(), 3);
}

TEST(FakeBackendTest, ASleepingDeviceTakesRealTime) {
  FakeBackend backend({.fixed_us = 2000});
  const absl::Time start = absl::Now();
  auto pass = backend.Begin(Batch({{1}}));
  ASSERT_TRUE(*(*pass)->Run(0));
  EXPECT_GE(absl::Now() - start, absl::Microseconds(2000));
}

TEST(FakeBackendTest, BrokenBatchesAreRefused) {
  FakeBackend backend({.max_batch_tokens = 4, .max_sequence_tokens = 3, .max_batch_sequences = 2});
  EXPECT_FALSE(backend.Begin(PackedBatch()).ok());
  EXPECT_FALSE(backend.Begin(Batch({{}})).ok());
  EXPECT_FALSE(backend.Begin(Batch({{1, 2, 3, 4}})).ok());
  EXPECT_FALSE(backend.Begin(Batch({{1, 2, 3}, {1, 2}})).ok());
  EXPECT_FALSE(backend.Begin(Batch({{1}, {1}, {1}})).ok());
  auto first = backend.Begin(Batch({{1}}));
  auto second = backend.Begin(Batch({{2}}));
  EXPECT_FALSE(backend.Begin(Batch({{3}})).ok());
}

TEST(FakeBackendTest, HooksFailThePassOrTheSequence) {
  FakeBackend backend(
      {.on_begin =
           [](const PackedBatch& batch) {
             return batch.token_ids[0] == 1 ? absl::InternalError("begin") : absl::OkStatus();
           },
       .on_step =
           [](const PackedBatch& batch, int) {
             return batch.token_ids[0] == 2 ? absl::InternalError("step") : absl::OkStatus();
           },
       .on_sequence =
           [](absl::Span<const TokenId> ids) {
             return ids[0] == 3 ? absl::InternalError("nan") : absl::OkStatus();
           }});
  EXPECT_FALSE(backend.Begin(Batch({{1}})).ok());
  EXPECT_FALSE((*backend.Begin(Batch({{2}})))->Run(0).ok());
  auto pass = backend.Begin(Batch({{3}, {4}}));
  ASSERT_TRUE(*(*pass)->Run(0));
  const auto out = (*pass)->Finish();
  EXPECT_FALSE(out[0].ok());
  EXPECT_TRUE(out[1].ok());
}

}  // namespace
}  // namespace quiver
