// The computing role of Hopper's attention kernel. For attention_sm90.cu.
#ifndef QUIVER_KERNELS_CUDA_ATTENTION_SM90_COMPUTE_CUH_
#define QUIVER_KERNELS_CUDA_ATTENTION_SM90_COMPUTE_CUH_

#include <cstdint>

#include "kernels/cuda/attention_sm90.cuh"
#include "kernels/cuda/attention_sm90_block.cuh"
#include "kernels/cuda/hopper.cuh"

namespace quiver::sm90 {

using namespace hopper;

// One thread of each warp tells the copying thread.
__device__ __forceinline__ void Release(uint32_t barrier) {
  if (threadIdx.x % 32 == 0) BarrierArrive(barrier);
}

// What both of a pair copy to both.
template <int kBlocks>
__device__ __forceinline__ void ReleaseToCopiers(uint32_t barrier) {
  if constexpr (kBlocks == 1) {
    Release(barrier);
  } else {
    if (threadIdx.x % 32 < kBlocks) BarrierArriveAt(barrier, threadIdx.x % 32);
  }
}

// What the first of a pair writes to both.
template <int kBlocks>
__device__ __forceinline__ void ReleaseItem(uint32_t barrier) {
  if constexpr (kBlocks == 1) {
    Release(barrier);
  } else {
    if (threadIdx.x % 32 == 0) BarrierArriveAt(barrier, 0);
  }
}

// One of the two computing warpgroups, `warpgroup` 0 or 1.
template <typename T, int kBlocks>
__device__ __forceinline__ void Consume(const Sm90Params& params, char* shared_bytes,
                                        uint32_t shared, Barriers barriers, int warpgroup) {
  constexpr int kTurnBarrier = 1;
  constexpr int kOwnBarrier = 3;
  const int thread = threadIdx.x % 128;
  const int warp = thread / 32;
  const int lane = thread % 32;

  const uint64_t q_descriptor = TileDescriptor(shared + kQOffset + warpgroup * 64 * 128, 0);
  const uint64_t k_descriptor = TileDescriptor(shared + kRingOffset, 0);
  const uint64_t v_descriptor = TileDescriptor(shared + kRingOffset, kHalfTileBytes);
  constexpr uint64_t kTileStep = kTileBytes >> 4;

  Cursor<kQBuffers> q;
  Cursor<kItemSlots> slot;
  Cursor<kStages> ring;
  Item item;
  int keys = 0;    // that the item sees
  int block = 0;   // whose weights are in p
  int v_rows = 0;  // of that block that are the sequence's own

  float acc[64];
  float s[64];
  uint32_t p[8][4];
  float rescale[2];
  RowState rows;

  // Makes the next item with rows the current one, at its last block; false at the list's end.
  const auto next_item = [&] {
    do {
      BarrierWaitCluster(barriers.item_full(slot.index), slot.parity);
      item = UnpackItem(*reinterpret_cast<const PackedItem*>(shared_bytes + kItemOffset +
                                                             slot.index * kItemBytes));
      __syncwarp();
      ReleaseItem<kBlocks>(barriers.item_empty(slot.index));
      slot.Advance();
    } while (item.tile.num_rows == 0);
    return item.tile.num_rows > 0;
  };
  const auto begin_item = [&] {
    keys = VisibleKeys(item.tile, params.causal);
    block = (keys + kBlockKeys - 1) / kBlockKeys - 1;
    v_rows = item.tile.kv_rows - block * kBlockKeys;
    // A finite start, so that rows for which the last block has no key get weights of 0.
    rows.max[0] = rows.max[1] = -1e30f;
    rows.sum[0] = rows.sum[1] = 0;
  };
  const auto needs_mask = [&] {
    const int end = (block + 1) * kBlockKeys;
    return end > keys || (params.causal && end - 1 > item.tile.q_position + warpgroup * 64);
  };
  const auto mask = [&] {
    const int key0 = block * kBlockKeys;
    int limit = keys - key0;
    int second = limit;
    if (params.causal) {
      const int seen = item.tile.q_position + warpgroup * 64 + warp * 16 + lane / 4 + 1 - key0;
      second = min(limit, seen + 8);
      limit = min(limit, seen);
    }
    Mask(s, limit, second - limit);
  };
  const auto issue_scores = [&] {
    BarrierWait(barriers.full(ring.index), ring.parity);
    MmaFence();
    IssueScores<T>(s, q_descriptor + q.index * kTileStep, k_descriptor + ring.index * kTileStep);
  };
  const auto issue_values = [&] {
    BarrierWait(barriers.full(ring.index), ring.parity);
    // What the block holds beyond the sequence belongs to others and may be anything; times a
    // weight of zero it must not become NaN. Both warpgroups write the same zeros.
    if (v_rows < kBlockKeys) {
      char* v = shared_bytes + kRingOffset + ring.index * kTileBytes;
      for (int i = v_rows * 16 + thread; i < kBlockKeys * 16; i += 128) {
        *reinterpret_cast<uint4*>(v + i % 16 / 8 * kHalfTileBytes + i / 16 * 128 + i % 8 * 16) =
            make_uint4(0, 0, 0, 0);
      }
      FenceAsyncProxy();
      NamedBarrierSync(kOwnBarrier + warpgroup, 128);
    }
    v_rows = kBlockKeys;
    MmaFence();
    IssueValues<T>(acc, p, v_descriptor + ring.index * kTileStep);
  };
  // Issues the products of one turn and leaves when the scores are there.
  const auto take_turn = [&](int* v_stage) {
    NamedBarrierSync(kTurnBarrier + warpgroup, 256);
    PinRegisters(acc);
    issue_scores();
    const int k_stage = ring.index;
    ring.Advance();
    issue_values();
    *v_stage = ring.index;
    ring.Advance();
    NamedBarrierArrive(kTurnBarrier + 1 - warpgroup, 256);
    MmaWait<1>();
    PinRegisters(s);
    ReleaseToCopiers<kBlocks>(barriers.empty(k_stage));
  };
  const auto step = [&](bool masked) {
    int v_stage;
    take_turn(&v_stage);
    if (masked) mask();
    Softmax(s, params.scale_log2, rows, rescale);
    MmaWait<0>();
    PinRegisters(acc);
    ReleaseToCopiers<kBlocks>(barriers.empty(v_stage));
    PackWeights<T>(s, p);
    Rescale(acc, rescale);
  };
  // Each warp turns its 16 rows around in its own part of Q's buffer.
  const auto write_out = [&](const Item& done, int q_buffer, const float(&sums)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = sums[half];
      sum += __shfl_xor_sync(0xffffffff, sum, 1);
      sum += __shfl_xor_sync(0xffffffff, sum, 2);
      rescale[half] = 1.0f / sum;
    }
    Rescale(acc, rescale);
    const int warp_row = warpgroup * 64 + warp * 16;
    char* staging = shared_bytes + kQOffset + q_buffer * kTileBytes + warp_row * 128;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = half * 8 + lane / 4;
        *reinterpret_cast<uint32_t*>(staging + j / 8 * kHalfTileBytes + row * 128 +
                                     ((j % 8 ^ (row & 7)) << 4) + lane % 4 * 4) =
            Pack<T>(acc[j * 4 + half * 2], acc[j * 4 + half * 2 + 1]);
      }
    }
    __syncwarp();
    char* out = params.out + done.tile.q_row * params.out_stride_bytes + done.head * (kDim * 2);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = i * 2 + lane / 16;
      const int chunk = lane % 16;
      if (warp_row + row < done.tile.num_rows) {
        *reinterpret_cast<uint4*>(out + (warp_row + row) * params.out_stride_bytes + chunk * 16) =
            *reinterpret_cast<const uint4*>(staging + chunk / 8 * kHalfTileBytes + row * 128 +
                                            ((chunk % 8 ^ (row & 7)) << 4));
      }
    }
    // The copy engine writes the buffer next.
    FenceAsyncProxy();
    __syncwarp();
    Release(barriers.q_empty(q_buffer, warpgroup));
  };
  const auto clear = [&] {
#pragma unroll
    for (int i = 0; i < 64; ++i) acc[i] = 0;
  };

  if (!next_item()) return;
  // The first turn is warpgroup 0's.
  if (warpgroup == 1) NamedBarrierArrive(kTurnBarrier, 256);

  begin_item();
  BarrierWait(barriers.q_full(q.index, warpgroup), q.parity);
  issue_scores();
  MmaWait<0>();
  PinRegisters(s);
  ReleaseToCopiers<kBlocks>(barriers.empty(ring.index));
  ring.Advance();
  if (needs_mask()) mask();
  Softmax(s, params.scale_log2, rows, rescale);
  PackWeights<T>(s, p);
  clear();
  while (true) {
    for (--block; block >= 0 && needs_mask(); --block) step(true);
    for (; block >= 0; --block) step(false);

    const Item done = item;
    const int done_buffer = q.index;
    if (!next_item()) {
      item = done;
      break;
    }
    const int v_rows_left = v_rows;
    const float sums[2] = {rows.sum[0], rows.sum[1]};
    begin_item();
    const int v_rows_next = v_rows;
    v_rows = v_rows_left;
    q.Advance();
    BarrierWait(barriers.q_full(q.index, warpgroup), q.parity);
    int v_stage;
    take_turn(&v_stage);
    v_rows = v_rows_next;
    if (needs_mask()) mask();
    Softmax(s, params.scale_log2, rows, rescale);
    MmaWait<0>();
    PinRegisters(acc);
    ReleaseToCopiers<kBlocks>(barriers.empty(v_stage));
    PackWeights<T>(s, p);
    write_out(done, done_buffer, sums);
    clear();
  }
  PinRegisters(acc);
  issue_values();
  MmaWait<0>();
  PinRegisters(acc);
  write_out(item, q.index, rows.sum);
}

}  // namespace quiver::sm90

#endif  // QUIVER_KERNELS_CUDA_ATTENTION_SM90_COMPUTE_CUH_
