#include "engine/run/cuda/graph_bucket.h"

#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace quiver {
namespace {

constexpr PassLimits kLimits = {.tokens = 4096, .sequences = 512, .chunk_tokens = 4096};
constexpr AttentionShape kShape = {
    .num_heads = 4, .num_kv_heads = 2, .head_dim = 128, .causal = true};

TEST(GraphBucketTest, BucketsGrowAndAreNotMuchLargerThanTheOneBefore) {
  const std::vector<GraphBucket> buckets = GraphBuckets(kLimits);
  ASSERT_FALSE(buckets.empty());
  EXPECT_EQ(buckets.front().tokens, 32);
  EXPECT_EQ(buckets.back().tokens, kMaxGraphTokens);
  for (size_t i = 1; i < buckets.size(); ++i) {
    EXPECT_GT(buckets[i].tokens, buckets[i - 1].tokens);
    EXPECT_GE(buckets[i].sequences, buckets[i - 1].sequences);
    if (buckets[i - 1].tokens >= 128) {
      EXPECT_LE(buckets[i].tokens, buckets[i - 1].tokens * 5 / 4);
    }
  }
}

TEST(GraphBucketTest, TheSmallestThatHoldsABatchIsFound) {
  const std::vector<GraphBucket> buckets = GraphBuckets(kLimits);
  EXPECT_EQ(FindBucket(buckets, 1, 1), 0);
  EXPECT_EQ(FindBucket(buckets, 32, 1), 0);
  EXPECT_EQ(FindBucket(buckets, 33, 1), 1);
  // 32 queries of 32.
  const int index = FindBucket(buckets, 1024, 32);
  ASSERT_GE(index, 0);
  EXPECT_EQ(buckets[index].tokens, 1024);
  EXPECT_EQ(FindBucket(buckets, 1025, 1), -1);
  EXPECT_EQ(FindBucket(buckets, 600, 500), -1);
}

TEST(GraphBucketTest, ASmallRegionHasTheBucketsThatFit) {
  for (const GraphBucket& bucket :
       GraphBuckets({.tokens = 200, .sequences = 8, .chunk_tokens = 200})) {
    EXPECT_LE(bucket.tokens, 200);
    EXPECT_LE(bucket.sequences, 8);
  }
}

std::vector<AttentionRows> RandomRows(std::mt19937* rng, const GraphBucket& bucket, bool pooled) {
  std::vector<AttentionRows> rows;
  int32_t begin = 0;
  while (static_cast<int64_t>(rows.size()) < bucket.sequences && begin < bucket.tokens) {
    const auto left = static_cast<int32_t>(bucket.tokens) - begin;
    const int32_t length = std::uniform_int_distribution<int32_t>(1, std::min(left, 300))(*rng);
    AttentionRows run = {begin, 0, length, begin, length};
    if (pooled) run = {static_cast<int32_t>(rows.size()), length - 1, 1, begin, length};
    rows.push_back(run);
    begin += length;
  }
  return rows;
}

TEST(GraphBucketTest, PaddedPlansHaveTheSameLaunchesAndEveryRow) {
  std::mt19937 rng(3);
  for (const AttentionPath path : {AttentionPath::kHopper, AttentionPath::kPortable}) {
    for (const GraphBucket& bucket : GraphBuckets(kLimits)) {
      for (const bool pooled : {false, true}) {
        const int64_t long_tiles = pooled ? PooledLongTiles(bucket) : LongTiles(bucket);
        const int64_t short_tiles = pooled ? PooledShortTiles(bucket) : ShortTiles(bucket);
        const AttentionPlan empty =
            PadAttention(kShape, path, {}, long_tiles, short_tiles, bucket.tokens);
        for (int round = 0; round < 50; ++round) {
          const std::vector<AttentionRows> rows = RandomRows(&rng, bucket, pooled);
          const AttentionPlan plan =
              PadAttention(kShape, path, rows, long_tiles, short_tiles, bucket.tokens);
          ASSERT_EQ(plan.tiles.size(), static_cast<size_t>(long_tiles + short_tiles));
          ASSERT_EQ(plan.launches.size(), empty.launches.size());
          for (size_t i = 0; i < plan.launches.size(); ++i) {
            EXPECT_EQ(plan.launches[i].kernel, empty.launches[i].kernel);
            EXPECT_EQ(plan.launches[i].first_tile, empty.launches[i].first_tile);
            EXPECT_EQ(plan.launches[i].num_tiles, empty.launches[i].num_tiles);
            EXPECT_EQ(plan.launches[i].max_kv_rows, empty.launches[i].max_kv_rows);
          }
          int64_t wanted = 0;
          int64_t planned = 0;
          for (const AttentionRows& run : rows) wanted += run.num_rows;
          for (const AttentionTile& tile : plan.tiles) planned += tile.num_rows;
          EXPECT_EQ(planned, wanted);
          // Tiles of long sequences belong to the launch that is made for them.
          for (const AttentionLaunch& launch : plan.launches) {
            for (int32_t t = 0; t < launch.num_tiles; ++t) {
              const AttentionTile& tile = plan.tiles[launch.first_tile + t];
              if (tile.num_rows == 0) continue;
              EXPECT_EQ(launch.kernel == AttentionKernel::kShort,
                        tile.kv_rows <= kAttentionShortRows);
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace quiver
