// The copying role of Hopper's attention kernel. For attention_sm90.cu.
#ifndef QUIVER_KERNELS_CUDA_ATTENTION_SM90_COPY_CUH_
#define QUIVER_KERNELS_CUDA_ATTENTION_SM90_COPY_CUH_

#include <cstdint>

#include "kernels/cuda/attention_sm90.cuh"
#include "kernels/cuda/hopper.cuh"

namespace quiver::sm90 {

using namespace hopper;

template <int kBlocks>
__device__ __forceinline__ Item LoadItem(const Sm90Params& params, int index) {
  Item item;
  item.tile.num_rows = -1;
  if (index >= params.num_tiles * params.num_heads / kBlocks) return item;
  const int section_heads = params.section_heads / kBlocks;
  const int section_items = params.num_tiles * section_heads;
  const int section = index / section_items;
  const int rest = index % section_items;
  item.tile = params.tiles[rest / section_heads];
  item.head = params.first_head + (section * section_heads + rest % section_heads) * kBlocks;
  // Tiles without rows come last.
  if (item.tile.num_rows == 0 && params.section_heads == params.num_heads) item.tile.num_rows = -1;
  return item;
}

// Gives an item to the block's other roles; the first of a pair gives it to both blocks.
template <int kBlocks>
__device__ __forceinline__ void Publish(const Item& item, int slot, char* shared_bytes,
                                        uint32_t shared, Barriers barriers) {
  const int offset = kItemOffset + slot * kItemBytes;
  PackedItem packed = PackItem(item);
  *reinterpret_cast<PackedItem*>(shared_bytes + offset) = packed;
  BarrierArrive(barriers.item_full(slot));
  if constexpr (kBlocks == 2) {
    ++packed.high.y;
    StoreToBlock(shared + offset, 1, packed.low);
    StoreToBlock(shared + offset + sizeof(int4), 1, packed.high);
    BarrierPublishAt(barriers.item_full(slot), 1);
  }
}

// The copying thread. The order in the ring is that of use: K of a block comes before V of the
// block before it, across items too. Of a pair each copies half of the rows, to both.
template <int kBlocks>
__device__ __forceinline__ void Produce(const Sm90Params& params, char* shared_bytes,
                                        uint32_t shared, Barriers barriers) {
  const int num_claimers = static_cast<int>(gridDim.x) / kBlocks;
  const int rank = BlockRank<kBlocks>();
  Cursor<kQBuffers> q;
  Cursor<kItemSlots> slot;
  Cursor<kStages> ring;

  const auto copy_block = [&](const CUtensorMap* map, int kv_head, int row) {
    const uint32_t full = barriers.full(ring.index);
    const uint32_t to = shared + kRingOffset + ring.index * kTileBytes;
    BarrierWait(barriers.empty(ring.index), ring.parity ^ 1);
    BarrierArriveExpect(full, kTileBytes);
    if constexpr (kBlocks == 1) {
      CopyBox3(to, map, 0, kv_head, row, full);
      CopyBox3(to + kHalfTileBytes, map, 64, kv_head, row, full);
    } else {
      const int half = rank * kBlockKeys / 2;
      CopyBox3ToBoth(to + half * 128, map, 0, kv_head, row + half, full);
      CopyBox3ToBoth(to + half * 128 + kHalfTileBytes, map, 64, kv_head, row + half, full);
    }
    ring.Advance();
  };

  // An item is claimed kClaimBlocks before the end of the one before it: early enough to hide the
  // way to memory and back, and no earlier, as a block that sits on an item while it is busy with a
  // long one keeps the others waiting at the launch's end. The first of a pair claims for both.
  constexpr int kClaimBlocks = 3;
  int next_index = static_cast<int>(blockIdx.x) / kBlocks;
  const auto claim = [&] {
    if (rank == 0) next_index = atomicAdd(&params.counters[0], 1) + num_claimers;
  };
  int v_head = 0;
  int v_row = -1;  // of the block whose K is copied and whose V is not; -1 if there is none
  while (true) {
    Item item;
    if (rank == 0) {
      item = LoadItem<kBlocks>(params, next_index);
      BarrierWaitCluster(barriers.item_empty(slot.index), slot.parity ^ 1);
      Publish<kBlocks>(item, slot.index, shared_bytes, shared, barriers);
    } else {
      BarrierWaitCluster(barriers.item_full(slot.index), slot.parity);
      item = UnpackItem(*reinterpret_cast<const PackedItem*>(shared_bytes + kItemOffset +
                                                             slot.index * kItemBytes));
      BarrierArriveAt(barriers.item_empty(slot.index), 0);
    }
    slot.Advance();
    if (item.tile.num_rows < 0) break;

    if (item.tile.num_rows == 0) {
      claim();
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
        if (block == min(kClaimBlocks, num_blocks) - 1) claim();
        const int row = item.tile.kv_row + block * kBlockKeys;
        copy_block(&params.k_map, kv_head, row);
        if (v_row >= 0) copy_block(&params.v_map, v_head, v_row);
        v_head = kv_head;
        v_row = row;
      }
    }
  }
  if (v_row >= 0) copy_block(&params.v_map, v_head, v_row);

  // The last to finish leaves the counters as they were found.
  __threadfence();
  if (rank == 0 && atomicAdd(&params.counters[1], 1) == num_claimers - 1) {
    params.counters[0] = 0;
    params.counters[1] = 0;
  }
}

}  // namespace quiver::sm90

#endif  // QUIVER_KERNELS_CUDA_ATTENTION_SM90_COPY_CUH_
