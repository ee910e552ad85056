// The copying role of Hopper's attention kernel. For attention_sm90.cu.
#ifndef QUIVER_KERNELS_CUDA_ATTENTION_SM90_COPY_CUH_
#define QUIVER_KERNELS_CUDA_ATTENTION_SM90_COPY_CUH_

#include <cstdint>

#include "kernels/cuda/attention_sm90.cuh"
#include "kernels/cuda/hopper.cuh"

namespace quiver::sm90 {

using namespace hopper;

__device__ __forceinline__ Item LoadItem(const Sm90Params& params, int index) {
  Item item;
  item.tile.num_rows = -1;
  if (index >= params.num_tiles * params.num_heads) return item;
  // Tiles without rows come last.
  const int section_items = params.num_tiles * params.section_heads;
  const int section = index / section_items;
  const int rest = index % section_items;
  item.tile = params.tiles[rest / params.section_heads];
  item.head = params.first_head + section * params.section_heads + rest % params.section_heads;
  if (item.tile.num_rows == 0 && params.section_heads == params.num_heads) item.tile.num_rows = -1;
  return item;
}

// The copying thread. The order in the ring is that of use: K of a block comes before V of the
// block before it, across items too.
__device__ __forceinline__ void Produce(const Sm90Params& params, char* shared_bytes,
                                        uint32_t shared, Barriers barriers) {
  const int num_blocks_in_grid = static_cast<int>(gridDim.x);
  Cursor<kQBuffers> q;
  Cursor<kItemSlots> slot;
  Cursor<kStages> ring;

  const auto copy_block = [&](const CUtensorMap* map, int kv_head, int row) {
    const uint32_t full = barriers.full(ring.index);
    const uint32_t to = shared + kRingOffset + ring.index * kTileBytes;
    BarrierWait(barriers.empty(ring.index), ring.parity ^ 1);
    BarrierArriveExpect(full, kTileBytes);
    CopyBox3(to, map, 0, kv_head, row, full);
    CopyBox3(to + kHalfTileBytes, map, 64, kv_head, row, full);
    ring.Advance();
  };

  // An item is claimed kClaimBlocks before the end of the one before it: early enough to hide the
  // way to memory and back, and no earlier, as a block that sits on an item while it is busy with a
  // long one keeps the others waiting at the launch's end.
  constexpr int kClaimBlocks = 3;
  const auto claim = [&] { return atomicAdd(&params.counters[0], 1) + num_blocks_in_grid; };
  Item item = LoadItem(params, static_cast<int>(blockIdx.x));
  int next_index = 0;
  int v_head = 0;
  int v_row = -1;  // of the block whose K is copied and whose V is not; -1 if there is none
  while (true) {
    BarrierWait(barriers.item_empty(slot.index), slot.parity ^ 1);
    WriteItem(shared_bytes + kItemOffset + slot.index * kItemBytes, item);
    BarrierArrive(barriers.item_full(slot.index));
    slot.Advance();
    if (item.tile.num_rows < 0) break;

    if (item.tile.num_rows == 0) {
      next_index = claim();
    } else {
      const int kv_head = item.head / params.group;
      const int num_blocks = (VisibleKeys(item.tile, params.causal) + kBlockKeys - 1) / kBlockKeys;
#pragma unroll
      for (int warpgroup = 0; warpgroup < 2; ++warpgroup) {
        const uint32_t full = barriers.q_full(q.index, warpgroup);
        const uint32_t to = shared + kQOffset + q.index * kTileBytes + warpgroup * 64 * 128;
        const int row = item.tile.q_row + warpgroup * 64;
        BarrierWait(barriers.q_empty(q.index, warpgroup), q.parity ^ 1);
        BarrierArriveExpect(full, kTileBytes / 2);
        CopyBox3(to, &params.q_map, 0, item.head, row, full);
        CopyBox3(to + kHalfTileBytes, &params.q_map, 64, item.head, row, full);
      }
      q.Advance();
      for (int block = num_blocks - 1; block >= 0; --block) {
        if (block == min(kClaimBlocks, num_blocks) - 1) next_index = claim();
        const int row = item.tile.kv_row + block * kBlockKeys;
        copy_block(&params.k_map, kv_head, row);
        if (v_row >= 0) copy_block(&params.v_map, v_head, v_row);
        v_head = kv_head;
        v_row = row;
      }
    }
    item = LoadItem(params, next_index);
  }
  if (v_row >= 0) copy_block(&params.v_map, v_head, v_row);

  // The last to finish leaves the counters as they were found.
  __threadfence();
  if (atomicAdd(&params.counters[1], 1) == num_blocks_in_grid - 1) {
    params.counters[0] = 0;
    params.counters[1] = 0;
  }
}

}  // namespace quiver::sm90

#endif  // QUIVER_KERNELS_CUDA_ATTENTION_SM90_COPY_CUH_
