#include "engine/run/cuda/graph_bucket.h"

#include <algorithm>
#include <cstddef>

namespace quiver {
namespace {

constexpr int64_t kShortTileRows = 64;
// Sequences of fewer tokens on average than this do not use a bucket to the full. Each further
// sequence of a bucket costs a tile a layer, empty as it may be.
constexpr int64_t kTokensPerSequence = 16;

// A bucket's tokens stay within some fifth of those of the batches that it is for.
int64_t NextTokens(int64_t tokens) {
  if (tokens < 256) return tokens + 32;
  return tokens < 512 ? tokens + 64 : tokens + 128;
}

void Append(const std::vector<AttentionTile>& tiles, const AttentionLaunch& launch,
            AttentionPlan* plan) {
  const auto first = tiles.begin() + launch.first_tile;
  plan->tiles.insert(plan->tiles.end(), first, first + launch.num_tiles);
}

}  // namespace

std::vector<GraphBucket> GraphBuckets(const PassLimits& limits) {
  std::vector<GraphBucket> buckets;
  const int64_t most = std::min({limits.tokens, limits.chunk_tokens, kMaxGraphTokens});
  for (int64_t tokens = 32; tokens <= most; tokens = NextTokens(tokens)) {
    buckets.push_back({tokens, std::min(limits.sequences, tokens / kTokensPerSequence)});
  }
  return buckets;
}

int FindBucket(const std::vector<GraphBucket>& buckets, int64_t tokens, int64_t sequences) {
  for (size_t i = 0; i < buckets.size(); ++i) {
    if (tokens <= buckets[i].tokens && sequences <= buckets[i].sequences) {
      return static_cast<int>(i);
    }
  }
  return -1;
}

AttentionPlan PadAttention(const AttentionShape& shape, AttentionPath path,
                           const std::vector<AttentionRows>& rows, int64_t long_tiles,
                           int64_t short_tiles, int64_t max_kv_rows) {
  const AttentionPlan unpadded = PlanAttention(shape, path, rows, {});
  // The kernel that long sequences take.
  const AttentionRows probe = {.num_rows = 1, .kv_rows = kAttentionShortRows + 1};
  const AttentionKernel long_kernel = PlanAttention(shape, path, {probe}, {}).launches[0].kernel;

  AttentionPlan plan;
  for (const AttentionKernel kernel : {long_kernel, AttentionKernel::kShort}) {
    const bool is_short = kernel == AttentionKernel::kShort;
    const int64_t num_tiles = is_short ? short_tiles : long_tiles;
    if (num_tiles == 0) continue;
    AttentionLaunch launch;
    launch.kernel = kernel;
    launch.first_tile = static_cast<int32_t>(plan.tiles.size());
    launch.num_tiles = static_cast<int32_t>(num_tiles);
    launch.num_heads = shape.num_heads;
    launch.max_kv_rows = static_cast<int32_t>(
        is_short ? std::min<int64_t>(max_kv_rows, kAttentionShortRows) : max_kv_rows);
    for (const AttentionLaunch& part : unpadded.launches) {
      if (part.kernel == kernel) Append(unpadded.tiles, part, &plan);
    }
    plan.tiles.resize(static_cast<size_t>(launch.first_tile + launch.num_tiles));
    plan.launches.push_back(launch);
  }
  return plan;
}

int64_t LongTiles(const GraphBucket& bucket) {
  const int64_t sequences = std::min(bucket.sequences, bucket.tokens / (kAttentionShortRows + 1));
  return sequences == 0 ? 0 : bucket.tokens / kAttentionTileRows + sequences;
}

int64_t ShortTiles(const GraphBucket& bucket) {
  return bucket.tokens / kShortTileRows + bucket.sequences;
}

int64_t PooledLongTiles(const GraphBucket& bucket) {
  return std::min(bucket.sequences, bucket.tokens / (kAttentionShortRows + 1));
}

int64_t PooledShortTiles(const GraphBucket& bucket) { return bucket.sequences; }

}  // namespace quiver
