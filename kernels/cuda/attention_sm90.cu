// Attention by wgmma and the tensor copy engine, sm_90a, head_dim 128.
//
// Work mapping: one block a multiprocessor takes items (a tile of 128 queries of one head) off a
// list until it is empty, longest first. Its first warpgroup copies: Q once an item, blocks of 128
// keys through one ring for K and V. Two warpgroups of 64 query rows each compute.
//
// A computing warpgroup overlaps within itself: Q K^T of the next block and P V of this one are in
// flight together, and the next block's softmax runs under P V. This goes on from the last block of
// an item to the first of the next, so that short items cost no start. And it overlaps with its
// neighbour: the two take turns to issue products, so that one's softmax and output run under the
// other's products.
//
// Bound: 4 * 128 operations for each visible pair against wgmma's dense rate; a block's
// exponentials take half as long as its products. Short sequences: the bytes of Q and the output.
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/tensor_map.h"

namespace quiver {
namespace {

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
  int num_heads;
  int section_heads;  // heads that run through all tiles before the next ones start
  int group;
  bool causal;
  float scale_log2;
};

// What is in a slot of the item ring; num_rows < 0 ends the list.
struct Item {
  AttentionTile tile;
  int head;
};

template <typename T>
__device__ __forceinline__ uint32_t Pack(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ int VisibleKeys(const AttentionTile& tile, bool causal) {
  return causal ? min(tile.kv_rows, tile.q_position + tile.num_rows) : tile.kv_rows;
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

using namespace hopper;

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

__device__ __forceinline__ Item LoadItem(const Sm90Params& params, int index) {
  Item item;
  item.tile.num_rows = -1;
  if (index >= params.num_tiles * params.num_heads) return item;
  const int section_items = params.num_tiles * params.section_heads;
  const int section = index / section_items;
  const int rest = index % section_items;
  item.tile = params.tiles[rest / params.section_heads];
  item.head = section * params.section_heads + rest % params.section_heads;
  return item;
}

__device__ __forceinline__ void WriteItem(char* slot, const Item& item) {
  *reinterpret_cast<int4*>(slot) =
      make_int4(item.tile.q_row, item.tile.q_position, item.tile.num_rows, item.tile.kv_row);
  *reinterpret_cast<int2*>(slot + 16) = make_int2(item.tile.kv_rows, item.head);
}

__device__ __forceinline__ Item ReadItem(const char* slot) {
  const int4 low = *reinterpret_cast<const int4*>(slot);
  const int2 high = *reinterpret_cast<const int2*>(slot + 16);
  Item item;
  item.tile.q_row = low.x;
  item.tile.q_position = low.y;
  item.tile.num_rows = low.z;
  item.tile.kv_row = low.w;
  item.tile.kv_rows = high.x;
  item.head = high.y;
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

  // Indices and items are fetched an item ahead of their use.
  Item item = LoadItem(params, static_cast<int>(blockIdx.x));
  int next_index = atomicAdd(&params.counters[0], 1) + num_blocks_in_grid;
  int v_head = 0;
  int v_row = -1;  // of the block whose K is copied and whose V is not; -1 if there is none
  while (true) {
    BarrierWait(barriers.item_empty(slot.index), slot.parity ^ 1);
    WriteItem(shared_bytes + kItemOffset + slot.index * kItemBytes, item);
    BarrierArrive(barriers.item_full(slot.index));
    slot.Advance();
    if (item.tile.num_rows < 0) break;
    const Item next = LoadItem(params, next_index);
    next_index = atomicAdd(&params.counters[0], 1) + num_blocks_in_grid;

    if (item.tile.num_rows > 0) {
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
        const int row = item.tile.kv_row + block * kBlockKeys;
        copy_block(&params.k_map, kv_head, row);
        if (v_row >= 0) copy_block(&params.v_map, v_head, v_row);
        v_head = kv_head;
        v_row = row;
      }
    }
    item = next;
  }
  if (v_row >= 0) copy_block(&params.v_map, v_head, v_row);

  // The last to finish leaves the counters as they were found.
  __threadfence();
  if (atomicAdd(&params.counters[1], 1) == num_blocks_in_grid - 1) {
    params.counters[0] = 0;
    params.counters[1] = 0;
  }
}

// Scores of 64 rows against one K block, issued, not waited for.
template <typename T>
__device__ __forceinline__ void IssueScores(float (&s)[64], uint64_t q, uint64_t k) {
#pragma unroll
  for (int step = 0; step < kDim / 16; ++step) {
    // 16 columns are 32 bytes of a row; after 64 comes the other half tile.
    const uint64_t offset = (step / 4 * kHalfTileBytes + step % 4 * 32) >> 4;
    MmaShared<T>(s, q + offset, k + offset, step > 0);
  }
  MmaCommit();
}

template <typename T>
__device__ __forceinline__ void IssueValues(float (&acc)[64], const uint32_t (&p)[8][4],
                                            uint64_t v) {
#pragma unroll
  for (int step = 0; step < kBlockKeys / 16; ++step) {
    MmaRegisters<T>(acc, p[step], v + (step * 16 * 128 >> 4));
  }
  MmaCommit();
}

// Scores of keys from `limit` on, counted from the block's first, are taken out; `limit` is that of
// the thread's first row, and grows by `limit_step` to its second, eight rows below.
__device__ __forceinline__ void Mask(float (&s)[64], int limit, int limit_step) {
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int j = 0; j < 16; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (j * 8 + column + e % 2 >= limit + e / 2 * limit_step) s[j * 4 + e] = -INFINITY;
    }
  }
}

struct RowState {
  float max[2];
  float sum[2];  // of this thread's columns
};

// Turns scores into weights, updates the rows' state and gives the factor for what was summed under
// the old maximum.
__device__ __forceinline__ void Softmax(float (&s)[64], float scale_log2, RowState& rows,
                                        float (&rescale)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float top = rows.max[half];
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      top = fmaxf(top, fmaxf(s[j * 4 + half * 2], s[j * 4 + half * 2 + 1]));
    }
    top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 2));
    const float shift = top * scale_log2;
    rescale[half] = Exp2(fmaf(rows.max[half], scale_log2, -shift));
    rows.max[half] = top;
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
      for (int e = half * 2; e < half * 2 + 2; ++e) {
        s[j * 4 + e] = Exp2(fmaf(s[j * 4 + e], scale_log2, -shift));
        sum += s[j * 4 + e];
      }
    }
    rows.sum[half] = fmaf(rows.sum[half], rescale[half], sum);
  }
}

template <typename T>
__device__ __forceinline__ void PackWeights(const float (&s)[64], uint32_t (&p)[8][4]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) p[i / 4][i % 4] = Pack<T>(s[i * 2], s[i * 2 + 1]);
}

__device__ __forceinline__ void Rescale(float (&acc)[64], const float (&rescale)[2]) {
#pragma unroll
  for (int i = 0; i < 64; ++i) acc[i] *= rescale[i / 2 % 2];
}

// One thread of each warp tells the copying thread.
__device__ __forceinline__ void Release(uint32_t barrier) {
  if (threadIdx.x % 32 == 0) BarrierArrive(barrier);
}

// One of the two computing warpgroups, `warpgroup` 0 or 1.
template <typename T>
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
      BarrierWait(barriers.item_full(slot.index), slot.parity);
      item = ReadItem(shared_bytes + kItemOffset + slot.index * kItemBytes);
      __syncwarp();
      Release(barriers.item_empty(slot.index));
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
    Release(barriers.empty(k_stage));
  };
  const auto step = [&](bool masked) {
    int v_stage;
    take_turn(&v_stage);
    if (masked) mask();
    Softmax(s, params.scale_log2, rows, rescale);
    MmaWait<0>();
    PinRegisters(acc);
    Release(barriers.empty(v_stage));
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
  Release(barriers.empty(ring.index));
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
    Release(barriers.empty(v_stage));
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

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    AttentionSm90Kernel(const __grid_constant__ Sm90Params params) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ char dynamic[];
  const uint32_t dynamic_address = SharedAddress(dynamic);
  const uint32_t shared = (dynamic_address + 1023) / 1024 * 1024;
  char* shared_bytes = dynamic + (shared - dynamic_address);
  const Barriers barriers{shared + kBarrierOffset};

  if (threadIdx.x == 0) {
    PrefetchTensorMap(&params.q_map);
    PrefetchTensorMap(&params.k_map);
    PrefetchTensorMap(&params.v_map);
    for (int buffer = 0; buffer < kQBuffers; ++buffer) {
      for (int warpgroup = 0; warpgroup < 2; ++warpgroup) {
        BarrierInit(barriers.q_full(buffer, warpgroup), 1);
        BarrierInit(barriers.q_empty(buffer, warpgroup), kComputeWarps / 2);
      }
    }
    for (int stage = 0; stage < kStages; ++stage) {
      BarrierInit(barriers.full(stage), 1);
      BarrierInit(barriers.empty(stage), kComputeWarps);
    }
    for (int slot = 0; slot < kItemSlots; ++slot) {
      BarrierInit(barriers.item_full(slot), 1);
      BarrierInit(barriers.item_empty(slot), kComputeWarps);
    }
    BarrierInitFence();
  }
  __syncthreads();

  // Through a shuffle, so that the compiler knows that a warp takes one way: products must not be
  // under divergent control flow.
  const int role = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x) / 128, 0);
  if (role == 0) {
    GiveRegisters<40>();
    if (threadIdx.x == 0) Produce(params, shared_bytes, shared, barriers);
  } else {
    TakeRegisters<232>();
    Consume<T>(params, shared_bytes, shared, barriers, role - 1);
  }
#endif
}

// [rows, heads, 128] with boxes of `box_rows` rows of 64 columns of one head.
bool EncodeRows(const void* base, int64_t stride, int heads, int rows, int box_rows,
                AttentionType type, CUtensorMap* map) {
  static const EncodeTensorMap encode = FindEncodeTensorMap();
  if (encode == nullptr) return false;
  const cuuint64_t dims[3] = {kDim, static_cast<cuuint64_t>(heads), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[2] = {kDim * 2, static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t box[3] = {64, 1, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[3] = {1, 1, 1};
  return encode(map,
                type == AttentionType::kF16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                            : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                3, const_cast<void*>(base), dims, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <typename T>
cudaError_t LaunchSm90(const Sm90Params& params, int multiprocessors, cudaStream_t stream) {
  auto* kernel = AttentionSm90Kernel<T>;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytesAligned);
  if (error != cudaSuccess) return error;
  const int blocks = std::min(multiprocessors, params.num_tiles * params.num_heads);
  kernel<<<blocks, kThreads, kSharedBytesAligned, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace

cudaError_t AttentionSm90(const AttentionShape& shape, const AttentionLaunch& launch,
                          const AttentionTensors& tensors, float scale, cudaStream_t stream) {
  if (shape.head_dim != kDim || tensors.counters == nullptr) return cudaErrorInvalidValue;
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  int major = 0;
  int multiprocessors = 0;
  error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  if (major != 9) return cudaErrorInvalidValue;
  error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;

  Sm90Params params;
  if (!EncodeRows(tensors.q, tensors.q_stride, shape.num_heads, tensors.q_rows, kTileRows / 2,
                  shape.type, &params.q_map) ||
      !EncodeRows(tensors.k, tensors.k_stride, shape.num_kv_heads, tensors.kv_rows, kBlockKeys,
                  shape.type, &params.k_map) ||
      !EncodeRows(tensors.v, tensors.v_stride, shape.num_kv_heads, tensors.kv_rows, kBlockKeys,
                  shape.type, &params.v_map)) {
    return cudaErrorInvalidValue;
  }
  params.out = static_cast<char*>(tensors.out);
  params.out_stride_bytes = tensors.out_stride * 2;
  params.tiles = tensors.tiles + launch.first_tile;
  params.counters = tensors.counters;
  params.num_tiles = launch.num_tiles;
  params.num_heads = shape.num_heads;
  params.group = shape.num_heads / shape.num_kv_heads;
  params.causal = shape.causal;
  params.scale_log2 = scale * kLog2E;

  // As many key heads at a time as keep their K and V in L2 for all tiles.
  constexpr int64_t kSectionBytes = 32 << 20;
  int kv_heads = shape.num_kv_heads;
  while (kv_heads > 1 &&
         (shape.num_kv_heads % kv_heads != 0 ||
          static_cast<int64_t>(launch.max_kv_rows) * kDim * 4 * kv_heads > kSectionBytes)) {
    --kv_heads;
  }
  params.section_heads = kv_heads * params.group;

  return shape.type == AttentionType::kF16
             ? LaunchSm90<__half>(params, multiprocessors, stream)
             : LaunchSm90<__nv_bfloat16>(params, multiprocessors, stream);
}

}  // namespace quiver
