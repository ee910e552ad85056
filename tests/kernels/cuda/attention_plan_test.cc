// How attention is cut into tiles and launches; needs no device.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "kernels/cuda/attention.h"

namespace quiver {
namespace {

constexpr AttentionShape kShape = {32, 8, 128, true, AttentionType::kBf16};

// For how many heads each row of q is in a tile of the plan's launches.
std::map<int, int> RowCounts(const AttentionPlan& plan) {
  std::map<int, int> counts;
  for (const AttentionLaunch& launch : plan.launches) {
    for (int i = 0; i < launch.num_tiles; ++i) {
      const AttentionTile& tile = plan.tiles[static_cast<size_t>(launch.first_tile + i)];
      for (int row = 0; row < tile.num_rows; ++row) counts[tile.q_row + row] += launch.num_heads;
    }
  }
  return counts;
}

TEST(AttentionPlanTest, EveryRowIsInExactlyOneTileForEachHead) {
  const std::vector<AttentionRows> rows = {{0, 0, 1000, 0, 1000},
                                           {1000, 0, 1, 1000, 1},
                                           {1001, 0, 128, 1001, 128},
                                           {1129, 7, 130, 1129, 500},
                                           {1259, 0, 0, 1259, 10}};
  for (const double limit : {0.0, 1e8, 1.0}) {
    for (const AttentionPath path : {AttentionPath::kPortable, AttentionPath::kHopper}) {
      AttentionPlanOptions options;
      options.max_launch_flop = limit;
      const AttentionPlan plan = PlanAttention(kShape, path, rows, options);
      const std::map<int, int> counts = RowCounts(plan);
      EXPECT_EQ(counts.size(), 1259u);
      EXPECT_TRUE(std::all_of(counts.begin(), counts.end(),
                              [](const auto& entry) { return entry.second == kShape.num_heads; }));
    }
  }
}

TEST(AttentionPlanTest, TilesStartAtMultiplesFromTheRunsStartWhateverTheLimit) {
  AttentionPlanOptions options;
  options.max_launch_flop = 1e9;
  const AttentionPlan plan =
      PlanAttention(kShape, AttentionPath::kHopper, {{50, 0, 5000, 50, 5000}}, options);
  for (const AttentionTile& tile : plan.tiles) {
    EXPECT_EQ(tile.q_position % kAttentionTileRows, 0);
    EXPECT_EQ(tile.q_row, 50 + tile.q_position);
  }
}

TEST(AttentionPlanTest, LaunchesOfOneLongDocumentHaveNearlyEqualWorkUnderTheLimit) {
  const std::vector<AttentionRows> rows = {{0, 0, 32768, 0, 32768}};
  const double total = PlanAttention(kShape, AttentionPath::kHopper, rows, {}).launches[0].flop;
  EXPECT_NEAR(total, 4.0 * 128 * 32 * 32768 * 32769 / 2, total * 1e-9);
  // By divisors of the 8 key heads, then by tiles.
  for (const auto& [least, count] : std::vector<std::pair<double, size_t>>{
           {1.5, 2}, {3.5, 4}, {4.5, 8}, {7.5, 8}, {9, 16}, {23.5, 24}}) {
    AttentionPlanOptions options;
    options.max_launch_flop = total / least;
    const AttentionPlan plan = PlanAttention(kShape, AttentionPath::kHopper, rows, options);
    ASSERT_EQ(plan.launches.size(), count);
    for (const AttentionLaunch& launch : plan.launches) {
      EXPECT_NEAR(launch.flop, total / static_cast<double>(count), total / 50);
      EXPECT_LE(launch.flop, options.max_launch_flop);
      EXPECT_EQ(launch.max_kv_rows, 32768);
      EXPECT_EQ(launch.num_heads % (kShape.num_heads / kShape.num_kv_heads), 0);
    }
  }
}

TEST(AttentionPlanTest, LongestTilesComeFirstInEachLaunch) {
  AttentionPlanOptions options;
  options.max_launch_flop = 1e11;
  const AttentionPlan plan =
      PlanAttention(kShape, AttentionPath::kHopper,
                    {{0, 0, 3000, 0, 3000}, {3000, 0, 9000, 3000, 9000}}, options);
  ASSERT_GT(plan.launches.size(), 1u);
  for (const AttentionLaunch& launch : plan.launches) {
    for (int i = launch.first_tile + 1; i < launch.first_tile + launch.num_tiles; ++i) {
      const AttentionTile& before = plan.tiles[static_cast<size_t>(i - 1)];
      const AttentionTile& tile = plan.tiles[static_cast<size_t>(i)];
      EXPECT_GE(before.q_position + before.num_rows, tile.q_position + tile.num_rows);
    }
  }
}

TEST(AttentionPlanTest, KernelFollowsFromTheSequenceAlone) {
  const AttentionPlan plan =
      PlanAttention(kShape, AttentionPath::kHopper,
                    {{0, 0, kAttentionShortRows, 0, kAttentionShortRows},
                     {500, kAttentionShortRows, 1, 500, kAttentionShortRows + 1}},
                    {});
  ASSERT_EQ(plan.launches.size(), 2u);
  EXPECT_EQ(plan.launches[0].kernel, AttentionKernel::kHopper);
  EXPECT_EQ(plan.launches[0].num_tiles, 1);
  EXPECT_EQ(plan.launches[1].kernel, AttentionKernel::kShort);
}

TEST(AttentionPlanTest, PaddedPlansHaveTheSameLaunchesForAllBatchesThatFit) {
  AttentionPlanOptions options;
  options.padded_rows = 512;
  options.padded_sequences = 8;
  const std::vector<std::vector<AttentionRows>> batches = {{{0, 0, 512, 0, 512}},
                                                           {{0, 0, 1, 0, 1}},
                                                           {{0, 0, 129, 0, 129},
                                                            {129, 0, 129, 129, 129},
                                                            {258, 0, 129, 258, 129},
                                                            {387, 0, 125, 387, 125}},
                                                           {{0, 0, 65, 0, 65},
                                                            {65, 0, 65, 65, 65},
                                                            {130, 0, 65, 130, 65},
                                                            {195, 0, 65, 195, 65},
                                                            {260, 0, 65, 260, 65},
                                                            {325, 0, 65, 325, 65},
                                                            {390, 0, 65, 390, 65},
                                                            {455, 0, 57, 455, 57}}};
  const AttentionPlan first = PlanAttention(kShape, AttentionPath::kHopper, batches[0], options);
  ASSERT_EQ(first.launches.size(), 2u);
  for (const auto& batch : batches) {
    const AttentionPlan plan = PlanAttention(kShape, AttentionPath::kHopper, batch, options);
    ASSERT_EQ(plan.launches.size(), first.launches.size());
    EXPECT_EQ(plan.tiles.size(), first.tiles.size());
    int rows = 0;
    for (const AttentionRows& run : batch) rows += run.num_rows;
    EXPECT_EQ(RowCounts(plan).size(), static_cast<size_t>(rows));
    for (size_t i = 0; i < plan.launches.size(); ++i) {
      EXPECT_EQ(plan.launches[i].first_tile, first.launches[i].first_tile);
      EXPECT_EQ(plan.launches[i].num_tiles, first.launches[i].num_tiles);
    }
  }
}

TEST(AttentionPlanTest, PaddedPlanForShortBatchesHasTheShortLaunchAlone) {
  AttentionPlanOptions options;
  options.padded_rows = kAttentionShortRows;
  options.padded_sequences = 4;
  const AttentionPlan plan =
      PlanAttention(kShape, AttentionPath::kHopper, {{0, 0, 32, 0, 32}}, options);
  ASSERT_EQ(plan.launches.size(), 1u);
  EXPECT_EQ(plan.launches[0].kernel, AttentionKernel::kShort);
}

}  // namespace
}  // namespace quiver
