// What both roles of Hopper's attention kernel share: shared memory's layout, the list of items and
// the barriers between the copying thread and the computing warpgroups. For attention_sm90.cu.
#ifndef QUIVER_KERNELS_CUDA_ATTENTION_SM90_CUH_
#define QUIVER_KERNELS_CUDA_ATTENTION_SM90_CUH_

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/hopper.cuh"

namespace quiver::sm90 {

constexpr int kDim = 128;
constexpr int kTileRows = kAttentionTileRows;
constexpr int kBlockKeys = 128;
constexpr int kStages = 5;
constexpr int kThreads = 384;
constexpr int kComputeWarps = 8;
constexpr int kItemSlots = 2;
constexpr int kQBuffers = 2;

constexpr int kHalfTileBytes = 128 * 64 * 2;  // 128 rows of 64 columns
constexpr int kTileBytes = 2 * kHalfTileBytes;
constexpr int kQOffset = 0;
constexpr int kRingOffset = kQOffset + kQBuffers * kTileBytes;
constexpr int kItemOffset = kRingOffset + kStages * kTileBytes;
constexpr int kItemBytes = 32;
constexpr int kBarrierOffset = kItemOffset + kItemSlots * kItemBytes;
constexpr int kNumBarriers = 4 * kQBuffers + 2 * kStages + 2 * kItemSlots;
constexpr int kSharedBytes = kBarrierOffset + kNumBarriers * 8;
// Dynamic shared memory starts on a 16-byte border; the swizzle wants 1024.
constexpr int kSharedBytesAligned = kSharedBytes + 1024;
static_assert(kSharedBytesAligned <= 227 * 1024);

struct Sm90Params {
  CUtensorMap q_map;
  CUtensorMap k_map;
  CUtensorMap v_map;
  char* out;
  int64_t out_stride_bytes;
  const AttentionTile* tiles;
  int32_t* counters;
  int num_tiles;
  int first_head;
  int num_heads;
  int section_heads;  // heads that run through all tiles before the next ones start
  int group;
  bool causal;
  float scale_log2;
};

// What is in a slot of the item ring; num_rows < 0 ends the list. The second block of a pair has
// the head after `head`.
struct Item {
  AttentionTile tile;
  int head;
};

__device__ __forceinline__ int VisibleKeys(const AttentionTile& tile, bool causal) {
  return causal ? min(tile.kv_rows, tile.q_position + tile.num_rows) : tile.kv_rows;
}

// The six numbers of an item, as two vectors.
struct PackedItem {
  int4 low;
  int4 high;
};
static_assert(sizeof(PackedItem) == kItemBytes);

__device__ __forceinline__ PackedItem PackItem(const Item& item) {
  return {make_int4(item.tile.q_row, item.tile.q_position, item.tile.num_rows, item.tile.kv_row),
          make_int4(item.tile.kv_rows, item.head, 0, 0)};
}

__device__ __forceinline__ Item UnpackItem(const PackedItem& packed) {
  Item item;
  item.tile.q_row = packed.low.x;
  item.tile.q_position = packed.low.y;
  item.tile.num_rows = packed.low.z;
  item.tile.kv_row = packed.low.w;
  item.tile.kv_rows = packed.high.x;
  item.head = packed.high.y;
  return item;
}

struct Barriers {
  uint32_t base;
  // Q's are those of one warpgroup's rows of a buffer.
  __device__ uint32_t q_full(int buffer, int warpgroup) const {
    return base + (buffer * 2 + warpgroup) * 8;
  }
  __device__ uint32_t q_empty(int buffer, int warpgroup) const {
    return q_full(buffer + kQBuffers, warpgroup);
  }
  __device__ uint32_t full(int stage) const { return base + (4 * kQBuffers + stage) * 8; }
  __device__ uint32_t empty(int stage) const { return full(stage + kStages); }
  __device__ uint32_t item_full(int slot) const { return full(slot + 2 * kStages); }
  __device__ uint32_t item_empty(int slot) const { return item_full(slot + kItemSlots); }
};

// Blocks that share their keys: kBlocks is 1, or 2 for a pair of neighbours in a cluster.
template <int kBlocks>
__device__ __forceinline__ int BlockRank() {
  return kBlocks == 1 ? 0 : hopper::ClusterRank();
}

// A place in a ring of kSize and the parity of the round it is in.
template <int kSize>
struct Cursor {
  int index = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Advance() {
    if (++index == kSize) {
      index = 0;
      parity ^= 1;
    }
  }
};

}  // namespace quiver::sm90

#endif  // QUIVER_KERNELS_CUDA_ATTENTION_SM90_CUH_
