// The sizes that passes are captured as graphs for. Host arithmetic alone.
#ifndef QUIVER_ENGINE_RUN_CUDA_GRAPH_BUCKET_H_
#define QUIVER_ENGINE_RUN_CUDA_GRAPH_BUCKET_H_

#include <cstdint>
#include <vector>

#include "engine/run/cuda/activation_layout.h"
#include "kernels/cuda/attention.h"

namespace quiver {

// Smaller batches run in it with tokens that belong to no sequence, and sequences without tokens.
struct GraphBucket {
  int64_t tokens = 0;
  int64_t sequences = 0;
};

// In order of size, as far as `limits` allows.
std::vector<GraphBucket> GraphBuckets(const PassLimits& limits);

// The index of the smallest that holds a batch; -1 if none does.
int FindBucket(const std::vector<GraphBucket>& buckets, int64_t tokens, int64_t sequences);

// As PlanAttention without a limit, filled up to `long_tiles` and `short_tiles` tiles of its two
// kernels, whose launches are the same whatever `rows` are. `max_kv_rows` holds for all of them.
AttentionPlan PadAttention(const AttentionShape& shape, AttentionPath path,
                           const std::vector<AttentionRows>& rows, int64_t long_tiles,
                           int64_t short_tiles, int64_t max_kv_rows);

// What a bucket's passes need of the above: for whole sequences, and for one row of each.
int64_t LongTiles(const GraphBucket& bucket);
int64_t ShortTiles(const GraphBucket& bucket);
int64_t PooledLongTiles(const GraphBucket& bucket);
int64_t PooledShortTiles(const GraphBucket& bucket);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_GRAPH_BUCKET_H_
