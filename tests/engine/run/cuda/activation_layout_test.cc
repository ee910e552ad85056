#include "engine/run/cuda/activation_layout.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/run/cuda/cuda_memory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/run/cuda/shapes.h"

namespace quiver {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr int64_t kGiB = int64_t{1} << 30;

TEST(ActivationLayoutTest, ArraysAreAlignedAndDoNotOverlap) {
  for (const ForwardShape& shape : {Shape4B(), ShapeMiniLm()}) {
    const PassLimits limits = {
        .tokens = 1000, .sequences = 300, .chunk_tokens = 512, .decoder_bytes = 5000};
    const ActivationLayout layout(shape, limits);
    std::vector<std::pair<int64_t, int64_t>> arrays = {
        {layout.residual, 1000 * shape.hidden * 4},
        {layout.projected, 1000 * shape.projection_width() * 2},
        {layout.half, 512 * shape.hidden * 2},
        {layout.inner, 512 * shape.inner_width * 2},
        {layout.input, layout.input_bytes},
        {layout.results, 300 * 8},
        {layout.vectors, 300 * shape.hidden * 4},
        {layout.counters, 8},
        {layout.decoder, 5000},
        {layout.workspace, kWorkspaceBytes}};
    if (shape.prune_last) {
      arrays.push_back({layout.pooled_residual, 300 * shape.hidden * 4});
      arrays.push_back({layout.pooled_query, 300 * shape.query_width() * 2});
    }
    std::sort(arrays.begin(), arrays.end());
    int64_t end = 0;
    for (const auto& [offset, bytes] : arrays) {
      EXPECT_GE(offset, end);
      EXPECT_EQ(offset % kArenaAlignment, 0);
      end = offset + bytes;
    }
    EXPECT_LE(end, layout.bytes);
    EXPECT_LE(layout.vectors + 300 * shape.hidden * 4, layout.results + layout.output_bytes);
  }
}

TEST(ActivationLayoutTest, APlanHoldsWhatWasAskedForWhereItFits) {
  const absl::StatusOr<ActivationPlan> plan =
      PlanActivations(Shape4B(), {.available_bytes = 20 * kGiB,
                                  .tokens = 32768,
                                  .min_tokens = 512,
                                  .max_chunk_tokens = 1 << 20});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->first.tokens, 32768);
  EXPECT_EQ(plan->first.chunk_tokens, 8192);
  EXPECT_EQ(plan->second.tokens, 4096);
  EXPECT_LE(plan->first.sequences, plan->first.chunk_tokens);
}

TEST(ActivationLayoutTest, OnlyTheSecondPassHasRoomForAllLayersInOneLaunch) {
  const absl::StatusOr<ActivationPlan> plan =
      PlanActivations(Shape4B(), {.available_bytes = 20 * kGiB,
                                  .tokens = 32768,
                                  .min_tokens = 512,
                                  .max_chunk_tokens = 1 << 20,
                                  .decoder_bytes = 4 << 20});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->first.decoder_bytes, 0);
  EXPECT_EQ(plan->second.decoder_bytes, 4 << 20);
}

TEST(ActivationLayoutTest, WeightsAreExpandedInPartsWhereMemoryIsShort) {
  ActivationRequest request = {.available_bytes = 20 * kGiB,
                               .tokens = 32768,
                               .min_tokens = 512,
                               .max_chunk_tokens = 1 << 20,
                               .expanded_bytes = 100'000'000,
                               .layer_expanded_bytes = 180'000'000};
  absl::StatusOr<ActivationPlan> plan = PlanActivations(Shape4B(), request);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->first.expanded_bytes, 180'000'000);
  EXPECT_EQ(plan->second.expanded_bytes, 100'000'000);
  request.available_bytes = 1100'000'000;
  plan = PlanActivations(Shape4B(), request);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->first.tokens, 32768);
  EXPECT_EQ(plan->first.expanded_bytes, 50'000'000);
  EXPECT_LT(plan->second.expanded_bytes, 50'000'000);
  EXPECT_GT(plan->second.expanded_bytes, 0);
}

TEST(ActivationLayoutTest, ChunksShrinkBeforeTheBatchDoes) {
  ActivationRequest request = {.available_bytes = 20 * kGiB,
                               .tokens = 32768,
                               .min_tokens = 512,
                               .max_chunk_tokens = 1 << 20};
  int64_t last_tokens = request.tokens;
  int64_t last_chunk = 1 << 20;
  while (true) {
    const absl::StatusOr<ActivationPlan> plan = PlanActivations(Shape4B(), request);
    if (!plan.ok()) break;
    EXPECT_LE(plan->bytes, request.available_bytes);
    EXPECT_LE(plan->first.tokens, last_tokens);
    EXPECT_LE(plan->first.chunk_tokens, last_chunk);
    if (plan->first.tokens < request.tokens) {
      EXPECT_LE(plan->first.chunk_tokens, 1024);
    }
    last_tokens = plan->first.tokens;
    last_chunk = plan->first.chunk_tokens;
    request.available_bytes -= 16 << 20;
  }
  EXPECT_LT(last_tokens, 700);
  EXPECT_GE(last_tokens, 512);
}

TEST(ActivationLayoutTest, ASlowDevicesChunksAreShort) {
  const absl::StatusOr<ActivationPlan> plan = PlanActivations(
      Shape4B(),
      {.available_bytes = 20 * kGiB, .tokens = 32768, .min_tokens = 512, .max_chunk_tokens = 3000});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->first.chunk_tokens, 2048);
}

MemoryRequest Request4B(MemoryBudget budget) {
  return {.budget = budget,
          .total_bytes = 80 * kGiB,
          .foreign_bytes = 0,
          .context_bytes = kGiB / 2,
          .weight_bytes = 8'100'000'000,
          .default_input_tokens = 32768,
          .max_chunk_tokens = 8192};
}

TEST(CudaMemoryTest, ABatchOf32KTokensFitsTheIssuesBudget) {
  const auto grant = GrantMemory(Shape4B(), Request4B({9'800'000'000, 0}));
  ASSERT_TRUE(grant.ok()) << grant.status();
  EXPECT_EQ(grant->activations.first.tokens, 32768);
  EXPECT_EQ(grant->max_sequence_tokens, 32768);
}

TEST(CudaMemoryTest, ASmallBudgetCutsWhatNobodyAskedFor) {
  const auto grant = GrantMemory(Shape4B(), Request4B({9'400'000'000, 0}));
  ASSERT_TRUE(grant.ok()) << grant.status();
  EXPECT_LT(grant->activations.first.tokens, 32768);
  EXPECT_EQ(grant->max_sequence_tokens, grant->activations.first.tokens);
}

TEST(CudaMemoryTest, ABudgetTooSmallForWhatWasAskedForSaysWhatWouldFit) {
  MemoryRequest request = Request4B({9'400'000'000, 0});
  request.max_input_tokens = 32768;
  const absl::Status status = GrantMemory(Shape4B(), request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("--memory-budget, 9400000000"), HasSubstr("32768 tokens"),
                    HasSubstr("tokens would fit"), HasSubstr("weights")));
}

TEST(CudaMemoryTest, ABudgetBelowTheWeightsIsRefused) {
  const absl::Status status = GrantMemory(Shape4B(), Request4B({4 * kGiB, 0})).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("4GiB"), HasSubstr("0 tokens would fit")));
}

TEST(CudaMemoryTest, WhatOthersUseIsNotGivenOut) {
  MemoryRequest request = Request4B({});
  request.foreign_bytes = 78 * kGiB;
  EXPECT_FALSE(GrantMemory(Shape4B(), request).ok());
}

}  // namespace
}  // namespace quiver
