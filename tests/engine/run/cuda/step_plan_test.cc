#include "engine/run/cuda/step_plan.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/run/cuda/shapes.h"

namespace quiver {
namespace {

using Kind = PassOp::Kind;

DeviceRates H200() { return DeviceRates::Of(9, 0, 132, 1'980'000, AttentionPath::kHopper); }

// The operations of one batch, with `launches` launches of attention a layer.
std::vector<PassOp> OpsOf(const ForwardShape& shape, int64_t tokens, int64_t chunk, int launches) {
  const std::vector<AttentionLaunch> all(static_cast<size_t>(launches),
                                         AttentionLaunch{.flop = 1e9});
  const std::vector<AttentionLaunch> pooled(1, AttentionLaunch{.flop = 1e6});
  return ListOps(shape,
                 {.tokens = tokens,
                  .sequences = 3,
                  .chunk_tokens = chunk,
                  .launches = &all,
                  .pooled_launches = &pooled},
                 H200());
}

int Count(const std::vector<PassOp>& ops, Kind kind, int layer) {
  return static_cast<int>(std::count_if(ops.begin(), ops.end(), [&](const PassOp& op) {
    return op.kind == kind && op.layer == layer;
  }));
}

TEST(StepPlanTest, EveryLayerAttendsToTheEndBeforeItIsFinished) {
  for (const ForwardShape& shape : {Shape4B(), ShapeMiniLm()}) {
    const std::vector<PassOp> ops = OpsOf(shape, 20'000, 8192, 4);
    int layer = 0;
    bool finishing = false;
    for (const PassOp& op : ops) {
      if (op.kind == Kind::kAttend && finishing) {
        ++layer;
        finishing = false;
      }
      if (op.kind == Kind::kFinish) finishing = true;
      if (op.kind == Kind::kAttend || op.kind == Kind::kFinish) {
        EXPECT_EQ(op.layer, layer);
      }
    }
    EXPECT_EQ(ops.front().kind, Kind::kEmbed);
    EXPECT_EQ(ops.back().kind, Kind::kEncode);
    const int full = shape.prune_last ? shape.num_layers - 1 : shape.num_layers;
    for (int i = 0; i < full; ++i) {
      EXPECT_EQ(Count(ops, Kind::kAttend, i), 4);
      EXPECT_EQ(Count(ops, Kind::kFinish, i), 3);
    }
    EXPECT_EQ(Count(ops, Kind::kPooledFinish, shape.num_layers - 1), shape.prune_last ? 1 : 0);
    EXPECT_EQ(Count(ops, Kind::kFinish, shape.num_layers - 1), shape.prune_last ? 0 : 3);
  }
}

TEST(StepPlanTest, ChunksCoverTheBatchAndAreNearEachOtherInSize) {
  for (const int64_t tokens : {1, 127, 128, 129, 1024, 1025, 8192, 8193, 9000, 32768, 33001}) {
    int64_t next = 0;
    int64_t largest = 0;
    for (const PassOp& op : OpsOf(Shape4B(), tokens, 1024, 1)) {
      if (op.kind != Kind::kEmbed) continue;
      EXPECT_EQ(op.begin, next);
      EXPECT_GE(op.rows, 1);
      EXPECT_LE(op.rows, 1024);
      largest = std::max(largest, op.rows);
      next = op.begin + op.rows;
    }
    EXPECT_EQ(next, tokens);
    EXPECT_LT(largest, (tokens + (tokens + 1023) / 1024 - 1) / ((tokens + 1023) / 1024) + 128);
  }
}

TEST(StepPlanTest, StepsAreNoLongerThanTheirLimitAndLeaveNothingOut) {
  const std::vector<PassOp> ops = OpsOf(Shape4B(), 32'768, 8192, 6);
  const std::vector<size_t> ends = CutSteps(ops, 3000);
  size_t begin = 0;
  for (const size_t end : ends) {
    ASSERT_GT(end, begin);
    double us = 0;
    for (size_t i = begin; i < end; ++i) us += ops[i].us;
    if (end - begin > 1) {
      EXPECT_LE(us, 3000);
    }
    begin = end;
  }
  EXPECT_EQ(begin, ops.size());
  // 300 ms of work.
  EXPECT_GT(ends.size(), 90u);
}

TEST(StepPlanTest, AQueryIsOneStep) {
  EXPECT_EQ(CutSteps(OpsOf(ShapeMiniLm(), 32, 32, 1), 3000).size(), 1u);
}

TEST(StepPlanTest, AChunkOfTheLargestModelIsPredictedToBeAStep) {
  for (const PassOp& op : OpsOf(Shape4B(), 32'768, 8192, 6)) EXPECT_LE(op.us, 4000);
}

TEST(StepPlanTest, RatesFollowTheArchitecture) {
  const DeviceRates hopper = H200();
  const DeviceRates portable = DeviceRates::Of(9, 0, 132, 1'980'000, AttentionPath::kPortable);
  const DeviceRates ampere = DeviceRates::Of(8, 0, 108, 1'410'000, AttentionPath::kPortable);
  EXPECT_GT(hopper.attention_flop_per_us, portable.attention_flop_per_us);
  EXPECT_EQ(hopper.linear_flop_per_us, portable.linear_flop_per_us);
  // 312 and 989 TFLOP/s are stated.
  EXPECT_NEAR(ampere.linear_flop_per_us / hopper.linear_flop_per_us, 312.0 / 1070, 0.01);
}

}  // namespace
}  // namespace quiver
