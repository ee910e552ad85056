// Attention by wgmma and the tensor copy engine, sm_90a, head_dim 128.
//
// Work mapping: one block a multiprocessor takes items (a tile of 128 queries of one head) off a
// list until it is empty, longest first. Its first warpgroup copies, Q once an item and blocks of
// 128 keys through two-stage rings of K and V; two warpgroups of 64 query rows each compute. With
// clusters, two blocks take the same tile for two query heads of one key head, and each copies half
// of every K and V block to both, which halves the reads from L2.
//
// A computing warpgroup overlaps within itself: Q K^T of the next block and P V of this one are in
// flight together, and the next block's softmax runs under P V. And with its neighbour: the two
// take turns to issue products, so that one's softmax runs under the other's products.
//
// Bound: 4 * 128 operations for each visible pair against wgmma's dense rate. An exponential takes
// half as long as its two products of 128, so that softmax just hides.
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/hopper.cuh"

namespace quiver {
namespace {

constexpr int kDim = 128;
constexpr int kTileRows = kAttentionTileRows;
constexpr int kBlockKeys = 128;
constexpr int kStages = 2;
constexpr int kThreads = 384;
constexpr int kComputeWarps = 8;
constexpr int kItemSlots = 2;

constexpr int kHalfTileBytes = 128 * 64 * 2;  // 128 rows of 64 columns
constexpr int kTileBytes = 2 * kHalfTileBytes;
constexpr int kQOffset = 0;
constexpr int kKOffset = kQOffset + kTileBytes;
constexpr int kVOffset = kKOffset + kStages * kTileBytes;
constexpr int kOutOffset = kVOffset + kStages * kTileBytes;
constexpr int kItemOffset = kOutOffset + kTileBytes;
constexpr int kItemBytes = 32;
constexpr int kBarrierOffset = kItemOffset + kItemSlots * kItemBytes;
constexpr int kNumBarriers = 2 + 4 * kStages + 2 * kItemSlots;
constexpr int kSharedBytes = kBarrierOffset + kNumBarriers * 8;
// Dynamic shared memory starts on a 16-byte border; the swizzle wants 1024.
constexpr int kSharedBytesAligned = kSharedBytes + 1024;

struct Sm90Params {
  CUtensorMap q_map;
  CUtensorMap k_map;
  CUtensorMap v_map;
  char* out;
  int64_t out_stride_bytes;
  const AttentionTile* tiles;
  int32_t* counters;
  int num_tiles;
  int units;          // heads, or pairs of heads with clusters
  int section_units;  // units that run through all tiles before the next ones start
  int group;
  bool causal;
  float scale_log2;
};

// What is in a slot of the item ring; num_rows < 0 ends the list.
struct Item {
  AttentionTile tile;
  int unit;
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
  __device__ uint32_t q_full() const { return base; }
  __device__ uint32_t q_empty() const { return base + 8; }
  __device__ uint32_t k_full(int stage) const { return base + 16 + stage * 8; }
  __device__ uint32_t k_empty(int stage) const { return base + 16 + (kStages + stage) * 8; }
  __device__ uint32_t v_full(int stage) const { return base + 16 + (2 * kStages + stage) * 8; }
  __device__ uint32_t v_empty(int stage) const { return base + 16 + (3 * kStages + stage) * 8; }
  __device__ uint32_t item_full(int slot) const { return base + 16 + (4 * kStages + slot) * 8; }
  __device__ uint32_t item_empty(int slot) const {
    return base + 16 + (4 * kStages + kItemSlots + slot) * 8;
  }
};

__device__ __forceinline__ Item LoadItem(const Sm90Params& params, int index) {
  Item item;
  if (index >= params.num_tiles * params.units) {
    item.tile.num_rows = -1;
    item.unit = 0;
    return item;
  }
  const int section_items = params.num_tiles * params.section_units;
  const int section = index / section_items;
  const int rest = index % section_items;
  item.tile = params.tiles[rest / params.section_units];
  item.unit = section * params.section_units + rest % params.section_units;
  return item;
}

// Counts items through the ring and hands them out; in a cluster block 0 leads.
template <int kCluster>
__device__ __forceinline__ void PublishItem(uint32_t slot_address, uint32_t full,
                                            const Item& item) {
#pragma unroll
  for (int rank = 0; rank < kCluster; ++rank) {
    const uint32_t to = PeerAddress(slot_address, rank);
    StorePeer4(to, item.tile.q_row, item.tile.q_position, item.tile.num_rows, item.tile.kv_row);
    StorePeer4(to + 16, item.tile.kv_rows, item.unit, 0, 0);
    BarrierArrivePeer(PeerAddress(full, rank));
  }
}

__device__ __forceinline__ Item ReadItem(const char* slot) {
  const int4 low = *reinterpret_cast<const int4*>(slot);
  const int4 high = *reinterpret_cast<const int4*>(slot + 16);
  Item item;
  item.tile.q_row = low.x;
  item.tile.q_position = low.y;
  item.tile.num_rows = low.z;
  item.tile.kv_row = low.w;
  item.tile.kv_rows = high.x;
  item.unit = high.y;
  return item;
}

// One K or V block: whole, or this block's half of its rows to both blocks of the cluster.
template <int kCluster>
__device__ __forceinline__ void CopyBlock(uint32_t shared, const CUtensorMap* map, int kv_head,
                                          int row, uint32_t rank, uint32_t full) {
  BarrierArriveExpect(full, kTileBytes);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t to = shared + half * kHalfTileBytes;
    if constexpr (kCluster == 1) {
      CopyBox3(to, map, half * 64, kv_head, row, full);
    } else {
      CopyBox3Multicast(to + rank * (kHalfTileBytes / 2), map, half * 64, kv_head, row + rank * 64,
                        full, 3);
    }
  }
}

// The copying thread of a block.
template <int kCluster>
__device__ __forceinline__ void Produce(const Sm90Params& params, char* shared_bytes,
                                        uint32_t shared, Barriers barriers, uint32_t rank) {
  const int first = blockIdx.x / kCluster;
  const int num_clusters = gridDim.x / kCluster;
  int q_phase = 0;
  int slot = 0;
  int slot_phase = 0;
  int copied = 0;  // K (and V) blocks so far
  Item item;
  if (rank == 0) item = LoadItem(params, first);
  while (true) {
    if (rank == 0) {
      BarrierWait(barriers.item_empty(slot), slot_phase ^ 1);
      PublishItem<kCluster>(shared + kItemOffset + slot * kItemBytes, barriers.item_full(slot),
                            item);
    } else {
      BarrierWait(barriers.item_full(slot), slot_phase);
      item = ReadItem(shared_bytes + kItemOffset + slot * kItemBytes);
      BarrierArrivePeer(PeerAddress(barriers.item_empty(slot), 0));
    }
    if (++slot == kItemSlots) {
      slot = 0;
      slot_phase ^= 1;
    }
    if (item.tile.num_rows < 0) break;
    int next = 0;
    if (rank == 0) next = atomicAdd(&params.counters[0], 1) + num_clusters;

    if (item.tile.num_rows > 0) {
      const int head = item.unit * kCluster + static_cast<int>(rank);
      const int kv_head = head / params.group;
      const int num_blocks = (VisibleKeys(item.tile, params.causal) + kBlockKeys - 1) / kBlockKeys;

      BarrierWait(barriers.q_empty(), q_phase ^ 1);
      BarrierArriveExpect(barriers.q_full(), kTileBytes);
      CopyBox3(shared + kQOffset, &params.q_map, 0, head, item.tile.q_row, barriers.q_full());
      CopyBox3(shared + kQOffset + kHalfTileBytes, &params.q_map, 64, head, item.tile.q_row,
               barriers.q_full());
      q_phase ^= 1;

      // K runs one block ahead of V.
      for (int i = 0; i <= num_blocks; ++i) {
        if (i < num_blocks) {
          const int count = copied + i;
          const int stage = count % kStages;
          BarrierWait(barriers.k_empty(stage), count / kStages % 2 ^ 1);
          CopyBlock<kCluster>(shared + kKOffset + stage * kTileBytes, &params.k_map, kv_head,
                              item.tile.kv_row + (num_blocks - 1 - i) * kBlockKeys, rank,
                              barriers.k_full(stage));
        }
        if (i > 0) {
          const int count = copied + i - 1;
          const int stage = count % kStages;
          BarrierWait(barriers.v_empty(stage), count / kStages % 2 ^ 1);
          CopyBlock<kCluster>(shared + kVOffset + stage * kTileBytes, &params.v_map, kv_head,
                              item.tile.kv_row + (num_blocks - i) * kBlockKeys, rank,
                              barriers.v_full(stage));
        }
      }
      copied += num_blocks;
    }
    if (rank == 0) item = LoadItem(params, next);
  }
  if (rank == 0) {
    // The last to finish leaves the counters as they were found.
    __threadfence();
    if (atomicAdd(&params.counters[1], 1) == num_clusters - 1) {
      params.counters[0] = 0;
      params.counters[1] = 0;
    }
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

// One thread of each warp tells the copying thread of every block of the cluster.
template <int kCluster>
__device__ __forceinline__ void Release(uint32_t barrier) {
  const uint32_t lane = threadIdx.x % 32;
  if constexpr (kCluster == 1) {
    if (lane == 0) BarrierArrive(barrier);
  } else {
    if (lane < kCluster) BarrierArrivePeer(PeerAddress(barrier, lane));
  }
}

// One of the two computing warpgroups, `warpgroup` 0 or 1.
template <typename T, int kCluster>
__device__ __forceinline__ void Consume(const Sm90Params& params, char* shared_bytes,
                                        uint32_t shared, Barriers barriers, uint32_t rank,
                                        int warpgroup) {
  constexpr int kTurnBarrier = 1;
  const int thread = threadIdx.x % 128;
  const int warp = thread / 32;
  const int lane = thread % 32;
  const int row_in_tile = warpgroup * 64 + warp * 16 + lane / 4;

  const uint64_t q_descriptor = TileDescriptor(shared + kQOffset + warpgroup * 64 * 128, 0);
  const uint64_t k_descriptor = TileDescriptor(shared + kKOffset, 0);
  const uint64_t v_descriptor = TileDescriptor(shared + kVOffset, kHalfTileBytes);
  constexpr uint64_t kStageStep = kTileBytes >> 4;

  // The first turn is warpgroup 0's.
  if (warpgroup == 1) NamedBarrierArrive(kTurnBarrier, 256);

  int q_phase = 0;
  int slot = 0;
  int slot_phase = 0;
  int used = 0;  // K (and V) blocks so far
  while (true) {
    BarrierWait(barriers.item_full(slot), slot_phase);
    const Item item = ReadItem(shared_bytes + kItemOffset + slot * kItemBytes);
    __syncwarp();
    if (lane == 0) BarrierArrivePeer(PeerAddress(barriers.item_empty(slot), 0));
    if (++slot == kItemSlots) {
      slot = 0;
      slot_phase ^= 1;
    }
    const AttentionTile& tile = item.tile;
    if (tile.num_rows < 0) break;
    if (tile.num_rows == 0) continue;

    const int keys = VisibleKeys(tile, params.causal);
    const int num_blocks = (keys + kBlockKeys - 1) / kBlockKeys;
    const int first_position = tile.q_position + warpgroup * 64;
    const int position = tile.q_position + row_in_tile;

    float acc[64];
    float s[64];
    uint32_t p[8][4];
    float rescale[2];
    // A finite start, so that rows for which the last block has no key are left with weights of 0.
    RowState rows = {{-1e30f, -1e30f}, {0, 0}};
#pragma unroll
    for (int i = 0; i < 64; ++i) acc[i] = 0;

    const auto needs_mask = [&](int block) {
      const int end = (block + 1) * kBlockKeys;
      return end > keys || (params.causal && end - 1 > first_position);
    };
    const auto mask = [&](int block) {
      const int key0 = block * kBlockKeys;
      int limit = keys - key0;
      int second = limit;
      if (params.causal) {
        second = min(limit, position + 9 - key0);
        limit = min(limit, position + 1 - key0);
      }
      Mask(s, limit, second - limit);
    };

    // The last block alone: scores and softmax.
    int block = num_blocks - 1;
    BarrierWait(barriers.q_full(), q_phase);
    q_phase ^= 1;
    BarrierWait(barriers.k_full(used % kStages), used / kStages % 2);
    MmaFence();
    IssueScores<T>(s, q_descriptor, k_descriptor + used % kStages * kStageStep);
    MmaWait<0>();
    PinRegisters(s);
    Release<kCluster>(barriers.k_empty(used % kStages));
    if (num_blocks == 1) Release<1>(barriers.q_empty());
    if (needs_mask(block)) mask(block);
    Softmax(s, params.scale_log2, rows, rescale);
    PackWeights<T>(s, p);

    // What the block holds beyond the sequence belongs to others and may be anything; times a
    // weight of zero it must not become NaN. Both warpgroups write the same zeros.
    if ((block + 1) * kBlockKeys > tile.kv_rows) {
      BarrierWait(barriers.v_full(used % kStages), used / kStages % 2);
      const int valid = tile.kv_rows - block * kBlockKeys;
      char* v = shared_bytes + kVOffset + used % kStages * kTileBytes;
      for (int i = valid * 16 + thread; i < kBlockKeys * 16; i += 128) {
        *reinterpret_cast<uint4*>(v + i % 16 / 8 * kHalfTileBytes + i / 16 * 128 + i % 8 * 16) =
            make_uint4(0, 0, 0, 0);
      }
      FenceAsyncProxy();
      NamedBarrierSync(kTurnBarrier + 2 + warpgroup, 128);
    }

    const auto step = [&](bool masked) {
      const int k_stage = (used + 1) % kStages;
      const int v_stage = used % kStages;
      BarrierWait(barriers.k_full(k_stage), (used + 1) / kStages % 2);
      NamedBarrierSync(kTurnBarrier + warpgroup, 256);
      PinRegisters(acc);
      MmaFence();
      IssueScores<T>(s, q_descriptor, k_descriptor + k_stage * kStageStep);
      BarrierWait(barriers.v_full(v_stage), used / kStages % 2);
      MmaFence();
      IssueValues<T>(acc, p, v_descriptor + v_stage * kStageStep);
      NamedBarrierArrive(kTurnBarrier + 1 - warpgroup, 256);
      MmaWait<1>();
      PinRegisters(s);
      Release<kCluster>(barriers.k_empty(k_stage));
      if (block == 0) Release<1>(barriers.q_empty());
      if (masked) mask(block);
      Softmax(s, params.scale_log2, rows, rescale);
      MmaWait<0>();
      PinRegisters(acc);
      Release<kCluster>(barriers.v_empty(v_stage));
      PackWeights<T>(s, p);
      Rescale(acc, rescale);
      ++used;
    };
    for (--block; block >= 0 && needs_mask(block); --block) step(true);
    for (; block >= 0; --block) step(false);

    BarrierWait(barriers.v_full(used % kStages), used / kStages % 2);
    PinRegisters(acc);
    MmaFence();
    IssueValues<T>(acc, p, v_descriptor + used % kStages * kStageStep);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      rows.sum[half] += __shfl_xor_sync(0xffffffff, rows.sum[half], 1);
      rows.sum[half] += __shfl_xor_sync(0xffffffff, rows.sum[half], 2);
      rescale[half] = 1.0f / rows.sum[half];
    }
    MmaWait<0>();
    PinRegisters(acc);
    Release<kCluster>(barriers.v_empty(used % kStages));
    ++used;
    Rescale(acc, rescale);

    // Each warp turns its 16 rows around in its own part of the staging buffer.
    char* staging = shared_bytes + kOutOffset + (warpgroup * 64 + warp * 16) * 256;
    __syncwarp();
#pragma unroll
    for (int j = 0; j < 16; ++j) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = half * 8 + lane / 4;
        *reinterpret_cast<uint32_t*>(staging + row * 256 + ((j ^ (row & 7)) << 4) + lane % 4 * 4) =
            Pack<T>(acc[j * 4 + half * 2], acc[j * 4 + half * 2 + 1]);
      }
    }
    __syncwarp();
    const int head = item.unit * kCluster + static_cast<int>(rank);
    char* out = params.out + tile.q_row * params.out_stride_bytes + head * (kDim * 2);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int row = i * 2 + lane / 16;
      const int chunk = lane % 16;
      const int tile_row = warpgroup * 64 + warp * 16 + row;
      if (tile_row < tile.num_rows) {
        *reinterpret_cast<uint4*>(out + tile_row * params.out_stride_bytes + chunk * 16) =
            *reinterpret_cast<const uint4*>(staging + row * 256 + ((chunk ^ (row & 7)) << 4));
      }
    }
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <typename T, int kCluster>
__global__ void __launch_bounds__(kThreads, 1)
    AttentionSm90Kernel(const __grid_constant__ Sm90Params params) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ char dynamic[];
  const uint32_t dynamic_address = SharedAddress(dynamic);
  const uint32_t shared = (dynamic_address + 1023) / 1024 * 1024;
  char* shared_bytes = dynamic + (shared - dynamic_address);
  const Barriers barriers{shared + kBarrierOffset};
  const uint32_t rank = kCluster == 1 ? 0 : blockIdx.x % kCluster;

  if (threadIdx.x == 0) {
    PrefetchTensorMap(&params.q_map);
    PrefetchTensorMap(&params.k_map);
    PrefetchTensorMap(&params.v_map);
    BarrierInit(barriers.q_full(), 1);
    BarrierInit(barriers.q_empty(), kComputeWarps);
    for (int stage = 0; stage < kStages; ++stage) {
      BarrierInit(barriers.k_full(stage), 1);
      BarrierInit(barriers.v_full(stage), 1);
      BarrierInit(barriers.k_empty(stage), kComputeWarps * kCluster);
      BarrierInit(barriers.v_empty(stage), kComputeWarps * kCluster);
    }
    for (int slot = 0; slot < kItemSlots; ++slot) {
      BarrierInit(barriers.item_full(slot), 1);
      // The computing warps of the cluster, and the copying threads that do not lead.
      BarrierInit(barriers.item_empty(slot), kComputeWarps * kCluster + kCluster - 1);
    }
    BarrierInitFence();
  }
  if constexpr (kCluster == 1) {
    __syncthreads();
  } else {
    ClusterSync();
  }

  // Through a shuffle, so that the compiler knows that a warp takes one way: products must not be
  // under divergent control flow.
  const int role = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x) / 128, 0);
  if (role == 0) {
    GiveRegisters<40>();
    if (threadIdx.x == 0) Produce<kCluster>(params, shared_bytes, shared, barriers, rank);
    __syncwarp();
  } else {
    TakeRegisters<232>();
    Consume<T, kCluster>(params, shared_bytes, shared, barriers, rank, role - 1);
  }
  // No block may be gone while another still signals it.
  if constexpr (kCluster > 1) ClusterSync();
#endif
}

}  // namespace

namespace {

using EncodeTensorMap = decltype(&cuTensorMapEncodeTiled);

// From the driver, without linking to it.
EncodeTensorMap FindEncodeTensorMap() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                       cudaEnableDefault, &result) != cudaSuccess ||
      result != cudaDriverEntryPointSuccess) {
    return nullptr;
  }
  return reinterpret_cast<EncodeTensorMap>(function);
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

template <typename T, int kCluster>
cudaError_t LaunchSm90(const Sm90Params& params, int multiprocessors, cudaStream_t stream) {
  auto* kernel = AttentionSm90Kernel<T, kCluster>;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytesAligned);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kCluster, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = static_cast<unsigned>(
      kCluster * std::min(multiprocessors / kCluster, params.num_tiles * params.units));
  config.blockDim = kThreads;
  config.dynamicSmemBytes = kSharedBytesAligned;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, params);
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

  const int group = shape.num_heads / shape.num_kv_heads;
  const int cluster = group % 2 == 0 ? 2 : 1;
  const int box_rows = kBlockKeys / cluster;
  Sm90Params params;
  if (!EncodeRows(tensors.q, tensors.q_stride, shape.num_heads, tensors.q_rows, kTileRows,
                  shape.type, &params.q_map) ||
      !EncodeRows(tensors.k, tensors.k_stride, shape.num_kv_heads, tensors.kv_rows, box_rows,
                  shape.type, &params.k_map) ||
      !EncodeRows(tensors.v, tensors.v_stride, shape.num_kv_heads, tensors.kv_rows, box_rows,
                  shape.type, &params.v_map)) {
    return cudaErrorInvalidValue;
  }
  params.out = static_cast<char*>(tensors.out);
  params.out_stride_bytes = tensors.out_stride * 2;
  params.tiles = tensors.tiles + launch.first_tile;
  params.counters = tensors.counters;
  params.num_tiles = launch.num_tiles;
  params.units = shape.num_heads / cluster;
  params.group = group;
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
  params.section_units = kv_heads * group / cluster;

  if (shape.type == AttentionType::kF16) {
    return cluster == 2 ? LaunchSm90<__half, 2>(params, multiprocessors, stream)
                        : LaunchSm90<__half, 1>(params, multiprocessors, stream);
  }
  return cluster == 2 ? LaunchSm90<__nv_bfloat16, 2>(params, multiprocessors, stream)
                      : LaunchSm90<__nv_bfloat16, 1>(params, multiprocessors, stream);
}

}  // namespace quiver
