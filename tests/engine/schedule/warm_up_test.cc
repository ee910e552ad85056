#include "engine/schedule/warm_up.h"

#include <stdexcept>

#include "gtest/gtest.h"
#include "tests/testing/fake_backend.h"

namespace quiver {
namespace {

TEST(WarmUpTest, RunsWhatFitsTheBackend) {
  FakeBackend backend(
      {.max_batch_tokens = 100, .max_sequence_tokens = 64, .max_batch_sequences = 4});
  CostModel cost;
  ASSERT_TRUE(WarmUp(&backend, 1000, &cost).ok());
  const auto passes = backend.Passes();
  ASSERT_GE(passes.size(), 3u);
  for (const auto& pass : passes) {
    EXPECT_LE(pass.tokens, 100);
    EXPECT_TRUE(pass.finished);
  }
}

TEST(WarmUpTest, TeachesTheCostModel) {
  // The calling thread sleeps, which takes no less than it is told.
  FakeBackend backend({.fixed_us = 2000, .token_us = 10});
  CostModel cost;
  ASSERT_TRUE(WarmUp(&backend, 1000, &cost).ok());
  EXPECT_GE(cost.PredictUs({1024, 32 * 1024}), 9000);
}

TEST(WarmUpTest, NoPassIsBegunThatWouldLastForLong) {
  FakeBackend backend({.max_batch_tokens = 8192, .max_sequence_tokens = 1024, .token_us = 100});
  CostModel cost;
  ASSERT_TRUE(WarmUp(&backend, 1000, &cost).ok());
  // The next would take 409 ms.
  EXPECT_LE(backend.Passes().back().tokens, 1024);

  FakeBackend fast({.max_batch_tokens = 8192, .max_sequence_tokens = 1024, .token_us = 1});
  CostModel full;
  ASSERT_TRUE(WarmUp(&fast, 1000, &full).ok());
  EXPECT_EQ(fast.Passes().back().tokens, 8192);
}

TEST(WarmUpTest, IdsThatGiveNoVectorAreNoErrorAmongOthersThatDo) {
  int64_t sequences = 0;
  FakeBackend backend({.on_sequence = [&](absl::Span<const TokenId>) {
    return sequences++ % 3 == 1 ? absl::InternalError("x") : absl::OkStatus();
  }});
  CostModel cost;
  EXPECT_TRUE(WarmUp(&backend, 1000, &cost).ok());
}

TEST(WarmUpTest, AFailedPassIsAnErrorAndSoIsNotOneVector) {
  FakeBackend begins({.on_begin = [](const PackedBatch&) { return absl::InternalError("x"); }});
  FakeBackend steps({.on_step = [](const PackedBatch&, int) { return absl::InternalError("x"); }});
  FakeBackend sequences(
      {.on_sequence = [](absl::Span<const TokenId>) { return absl::InternalError("x"); }});
  FakeBackend throws(
      {.on_step = [](const PackedBatch&, int) -> absl::Status { throw std::runtime_error("x"); }});
  CostModel cost;
  for (FakeBackend* backend : {&begins, &steps, &sequences, &throws}) {
    EXPECT_EQ(WarmUp(backend, 1000, &cost).code(), absl::StatusCode::kInternal);
  }
}

}  // namespace
}  // namespace quiver
