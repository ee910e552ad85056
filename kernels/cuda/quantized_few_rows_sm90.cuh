// y = x W^T for few rows of x and a W of fewer bits, on Hopper. What is W's own, a policy says:
//
//   struct Weight {
//     kUnitBytes      of a unit in the ring, a multiple of 16
//     kMaxPanels      of a split
//     kHasRowScales   whether sums are multiplied by Params::row_scales[feature] at the end
//     // One thread: copies a unit, of which `bytes` are announced to the barrier.
//     static void Copy(const Params&, int panel, int unit, uint32_t shared, uint32_t barrier,
//                      uint64_t policy);
//     // All of a warpgroup: what thread `thread` of 128 makes of the unit at `unit`.
//     template <typename T> struct Unit {
//       Unit(const unsigned char* unit, int thread);
//       // The left operand of wgmma m64k16 for columns 16 step on; steps are taken in order.
//       void Operand(int step, uint32_t (&out)[4]);
//     };
//   };
//
// Work mapping: a cluster of blocks has a few panels of 64 rows of W, each of its blocks a share of
// their units of 128 columns. In a block one thread copies units of W, and boxes of 128 columns of
// x, into two rings; warpgroups make W's codes into left operands of wgmma in registers and
// multiply, with x^T as the right operand. They share out the panels, or of few panels the units.
// Blocks then leave their sums in shared memory, and add them up in order across the cluster.
//
// Bound: bytes of W against the device's memory. The rings of two blocks fit a multiprocessor, so
// that a product's W is under way while the kernels before it still run; that of a few megabytes
// is there as a whole by the time its x is.
#ifndef QUIVER_KERNELS_CUDA_QUANTIZED_FEW_ROWS_SM90_CUH_
#define QUIVER_KERNELS_CUDA_QUANTIZED_FEW_ROWS_SM90_CUH_

#include <cuda.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/hopper_narrow.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/quantized_few_rows_kernels.h"

namespace quiver::quantized_few_rows {

constexpr int kGroupThreads = 128;
constexpr int kHalfColumns =
    kQuantizedUnitColumns / 2;  // of 128 bytes of x: what the swizzle spans
constexpr int kRowBytes = kHalfColumns * 2;
// At least one more than groups that take no turns have under way, and a multiple of the turns.
constexpr int XStages(int groups) { return groups == 3 ? 6 : 4; }
constexpr int kMaxXStages = 6;
constexpr int kMaxWeightStages = 24;
constexpr int kBarrierBytes = (2 * kMaxWeightStages + kMaxXStages) * 8;
constexpr int kMaxColumns = 64;
// Two blocks of this and some of the small kernels between products fit a multiprocessor.
constexpr int kOverlapBytes = 109 * 1024;
constexpr int kWholeBytes = 227 * 1024;

struct Params {
  CUtensorMap x_map;
  // W, as its policy has it.
  CUtensorMap weight_map;
  const unsigned char* weight;
  const float* row_scales;
  void* y;
  int64_t y_stride;
  int rows;
  int out_features;
  int panels;  // of W
  int units;   // of a panel
  int cluster_panels;
  int turns;
  int weight_stages;
  int weight_offset;  // of the ring
  int barrier_offset;
};

// Floats from one column of sums to the next: a multiple of 4 that lets a warp's stores, of eight
// rows of every other column, meet no bank conflict.
constexpr int kSumsPitch = kQuantizedPanelRows + 4;

constexpr int XStageBytes(int columns) { return 2 * columns * kRowBytes; }
// Where a block has fewer panels than groups, groups that share a panel take turns at its units.
constexpr int Turns(int groups, int panels) { return panels < groups ? groups / panels : 1; }

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

using namespace hopper;

template <typename Weight, int kGroups, int kColumns>
struct Share {
  static constexpr int kXStages = kGroups == 3 ? 6 : 4;
  static constexpr int kUnitBytes = Weight::kUnitBytes;
  static constexpr int kXRows = kColumns;
  static constexpr int kXBytes = 2 * kXRows * kRowBytes;

  __device__ Share(const Params& params, uint32_t shared_address)
      : p(params), shared(shared_address) {
    cluster_blocks = ClusterBlocks();
    rank = ClusterRank();
    first_panel = static_cast<int>(blockIdx.x) / cluster_blocks * p.cluster_panels;
    num_panels = min(p.cluster_panels, p.panels - first_panel);
    first_unit = p.units * rank / cluster_blocks;
    count = p.units * (rank + 1) / cluster_blocks - first_unit;
  }

  __device__ uint32_t weight_full(int stage) const { return shared + p.barrier_offset + stage * 8; }
  __device__ uint32_t empty(int stage) const { return weight_full(stage + kMaxWeightStages); }
  __device__ uint32_t x_full(int stage) const { return weight_full(stage + 2 * kMaxWeightStages); }
  __device__ uint32_t x(int stage) const { return shared + stage * kXBytes; }
  __device__ int weight(int stage) const {
    return p.weight_offset + stage * p.cluster_panels * kUnitBytes;
  }

  const Params& p;
  uint32_t shared;
  int cluster_blocks;
  int rank;
  int first_panel;
  int num_panels;
  int first_unit;
  int count;  // of units of each panel
};

// The copying thread. A unit that is done with frees its place in both rings.
template <typename Weight, int kGroups, int kColumns>
__device__ __forceinline__ void Produce(const Share<Weight, kGroups, kColumns>& share) {
  using S = Share<Weight, kGroups, kColumns>;
  constexpr int kXStages = S::kXStages;
  const Params& p = share.p;
  // W is read once, unless there are more rows of x than one block takes.
  const uint64_t policy = gridDim.y == 1 ? EvictFirstPolicy() : EvictLastPolicy();
  const auto copy_weight = [&](int stage, int i) {
    const uint32_t barrier = share.weight_full(stage);
    BarrierArriveExpect(barrier, share.num_panels * S::kUnitBytes);
    for (int panel = 0; panel < share.num_panels; ++panel) {
      Weight::Copy(p, share.first_panel + panel, share.first_unit + i,
                   share.shared + share.weight(stage) + panel * S::kUnitBytes, barrier, policy);
    }
  };
  const auto copy_x = [&](int i) {
    const int stage = i % kXStages;
    const int column = (share.first_unit + i) * kQuantizedUnitColumns;
    const int row = static_cast<int>(blockIdx.y) * S::kXRows;
    BarrierArriveExpect(share.x_full(stage), S::kXBytes);
    CopyBox2(share.x(stage), &p.x_map, column, row, share.x_full(stage));
    CopyBox2(share.x(stage) + S::kXBytes / 2, &p.x_map, column + kHalfColumns, row,
             share.x_full(stage));
  };

  const int ahead = min(p.weight_stages, share.count);
  for (int i = 0; i < ahead; ++i) copy_weight(i, i);
  if (ahead == share.count) StartNextKernel();
  AwaitEarlierKernels();
  for (int i = 0; i < min(kXStages, share.count); ++i) copy_x(i);
  int stage = 0;
  uint32_t parity = 0;
  // Unit `done` has been multiplied.
  for (int done = 0; done + kXStages < share.count || done + p.weight_stages < share.count;
       ++done) {
    BarrierWait(share.empty(stage), parity);
    if (done + p.weight_stages < share.count) {
      copy_weight(stage, done + p.weight_stages);
      if (done + p.weight_stages + 1 == share.count) StartNextKernel();
    }
    if (done + kXStages < share.count) copy_x(done + kXStages);
    if (++stage == p.weight_stages) {
      stage = 0;
      parity ^= 1;
    }
  }
}

// Sums of the group's panels: acc[i][j] as wgmma leaves them.
template <typename T, typename Weight, int kGroups, int kGroupPanels, int kColumns>
__device__ __forceinline__ void Multiply(const Share<Weight, kGroups, kColumns>& share,
                                         const unsigned char* ring, int group,
                                         float (&acc)[kGroupPanels][kColumns / 2]) {
  using S = Share<Weight, kGroups, kColumns>;
  // Products of 16 columns that are under way while the operands of as many are made: fewer where
  // sums take the registers.
  constexpr int kSteps =
      kColumns < kMaxColumns && (kGroups > 2 || kGroupPanels * kColumns > 64) ? 2 : 4;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const int lane = thread % 32;
  const int turns = share.p.turns;
  const int turn = turns == 1 ? 0 : group / share.p.cluster_panels;
  const int first_panel = turns == 1 ? group : group % share.p.cluster_panels;
  int stage = turn;
  uint32_t parity = 0;
  int before = -1;  // the stage whose products may still be under way
  uint32_t operands[2][kSteps][4];
  // Not even waiting: copies do not wait for this group, and might be two rounds ahead of it.
  if (first_panel >= share.num_panels) return;
  for (int i = turn; i < share.count; i += turns) {
    BarrierWait(share.weight_full(stage), parity);
    BarrierWait(share.x_full(i % S::kXStages), static_cast<uint32_t>(i / S::kXStages) & 1);
    const uint64_t x = TileDescriptor(share.x(i % S::kXStages), 0);
#pragma unroll
    for (int j = 0; j < kGroupPanels; ++j) {
      const int panel = first_panel + j * kGroups;
      // The same for all of a group's threads.
      if (j > 0 && panel >= share.num_panels) break;
      typename Weight::template Unit<T> unit(ring + share.weight(stage) + panel * S::kUnitBytes,
                                             thread);
#pragma unroll
      for (int begin = 0; begin < kQuantizedUnitColumns / 16; begin += kSteps) {
        uint32_t(&batch)[kSteps][4] = operands[begin / kSteps % 2];
#pragma unroll
        for (int s = 0; s < kSteps; ++s) unit.Operand(begin + s, batch[s]);
        MmaFence();
#pragma unroll
        for (int s = 0; s < kSteps; ++s) {
          // 16 columns are 32 bytes of a row.
          const int offset = (begin + s) / 4 * (S::kXBytes / 2) + (begin + s) % 4 * 32;
          MmaRegistersNarrow<T>(acc[j], batch[s], x + (offset >> 4));
        }
        MmaCommit();
        // The products before these have been made: their operands may be overwritten.
        MmaWait<1>();
        if (j == 0 && begin == 0 && before >= 0) {
          if (lane == 0) BarrierArrive(share.empty(before));
        }
      }
    }
    before = stage;
    if (turns > 1) {
      // The other groups multiply meanwhile, and there may be no place left for this one's next.
      MmaWait<0>();
      if (lane == 0) BarrierArrive(share.empty(stage));
      before = -1;
    }
    stage += turns;
    if (stage >= share.p.weight_stages) {
      stage -= share.p.weight_stages;
      parity ^= 1;
    }
  }
  MmaWait<0>();
#pragma unroll
  for (int j = 0; j < kGroupPanels; ++j) {
    PinRegisters(acc[j]);
  }
}

// Into shared memory, a column (of one row of x) after the other.
template <int kColumns>
__device__ __forceinline__ void StoreSums(const float (&acc)[kColumns / 2], float* sums) {
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const int row = thread / 32 * 16 + thread % 32 / 4;
  const int column = thread % 4 * 2;
#pragma unroll
  for (int j = 0; j < kColumns / 2; ++j) {
    sums[(j / 4 * 8 + column + j % 2) * kSumsPitch + row + j / 2 % 2 * 8] = acc[j];
  }
}

// Adds up this block's part of the cluster's outputs, eight neighbours of one row of y at a time.
template <typename T, typename Weight, int kGroups, int kColumns>
__device__ __forceinline__ void WriteOutputs(const Share<Weight, kGroups, kColumns>& share) {
  constexpr int kPieces = kQuantizedPanelRows / 8;
  constexpr int kPartBytes = kColumns * kSumsPitch * 4;
  constexpr int kComputeThreads = kGroups * kGroupThreads;
  // Loads from another block take long: so many are under way at once.
  constexpr int kLoads = 4;
  const Params& p = share.p;
  const int first_row = static_cast<int>(blockIdx.y) * kColumns;
  const int rows = min(kColumns, p.rows - first_row);
  const int parts = share.cluster_blocks * p.turns;
  const int total = rows * share.num_panels * kPieces;
  const int step = share.cluster_blocks * kComputeThreads;
  for (int item = share.rank * kComputeThreads + static_cast<int>(threadIdx.x); item < total;
       item += step) {
    const int piece = item % kPieces;
    const int panel = item / kPieces % share.num_panels;
    const int row = item / kPieces / share.num_panels;
    const int feature = (share.first_panel + panel) * kQuantizedPanelRows + piece * 8;
    if (feature >= p.out_features) continue;
    const uint32_t from =
        share.shared + panel * kPartBytes + (row * kSumsPitch + piece * 8) * sizeof(float);
    float sum[8] = {};
    for (int begin = 0; begin < parts; begin += kLoads) {
      float4 low[kLoads];
      float4 high[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        // A part more than once, rather than none: it is not added.
        const int part = min(begin + i, parts - 1);
        const uint32_t place = from + part % p.turns * p.cluster_panels * kPartBytes;
        low[i] = LoadFromBlock(place, part / p.turns);
        high[i] = LoadFromBlock(place + 16, part / p.turns);
      }
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        if (begin + i >= parts) break;
        sum[0] += low[i].x;
        sum[1] += low[i].y;
        sum[2] += low[i].z;
        sum[3] += low[i].w;
        sum[4] += high[i].x;
        sum[5] += high[i].y;
        sum[6] += high[i].z;
        sum[7] += high[i].w;
      }
    }
    if constexpr (Weight::kHasRowScales) {
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[i] *= p.row_scales[feature + i];
    }
    Store8(static_cast<T*>(p.y) + (first_row + row) * p.y_stride + feature, sum);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

constexpr int Threads(int groups) { return groups * kGroupThreads + 32; }

// kGroups: warpgroups that multiply, each kGroupPanels panels. kColumns: of x^T, that is, rows of
// x.
template <typename T, typename Weight, int kGroups, int kGroupPanels, int kColumns>
__global__ void __launch_bounds__(Threads(kGroups), kColumns == kMaxColumns ? 1 : 2)
    QuantizedFewRowsKernel(const __grid_constant__ Params p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr int kComputeThreads = kGroups * kGroupThreads;
  extern __shared__ __align__(1024) unsigned char quantized_ring[];
  const Share<Weight, kGroups, kColumns> share(p, SharedAddress(quantized_ring));
  if (threadIdx.x == kComputeThreads) {
    PrefetchTensorMap(&p.x_map);
    // Of those groups that multiply a unit.
    const int warps = min(share.num_panels, kGroups) * kGroupThreads / 32;
    for (int stage = 0; stage < p.weight_stages; ++stage) {
      BarrierInit(share.weight_full(stage), 1);
      BarrierInit(share.empty(stage), warps);
    }
    for (int stage = 0; stage < share.kXStages; ++stage) BarrierInit(share.x_full(stage), 1);
    BarrierInitFence();
  }
  __syncthreads();

  // Through a shuffle, so that the compiler knows that a warp takes one way: products must not be
  // under divergent control flow.
  const int warp = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x) / 32, 0);
  const bool is_computing = warp < kComputeThreads / 32;
  if (is_computing) {
    const int group = warp / (kGroupThreads / 32);
    // Groups that would be a turn too many have nothing to do.
    const bool has_turn = p.turns == 1 || group < p.turns * p.cluster_panels;
    float acc[kGroupPanels][kColumns / 2] = {};
    AwaitEarlierKernels();
    if (has_turn) {
      Multiply<T, Weight, kGroups, kGroupPanels, kColumns>(share, quantized_ring, group, acc);
    }
    // All products have read the rings, which become the place of the sums.
    NamedBarrierSync(1, kComputeThreads);
    auto* sums = reinterpret_cast<float*>(quantized_ring);
#pragma unroll
    for (int j = 0; j < kGroupPanels; ++j) {
      const int part = group + j * kGroups;
      if (has_turn && part < p.turns * p.cluster_panels) {
        StoreSums<kColumns>(acc[j], sums + part * kColumns * kSumsPitch);
      }
    }
    if (share.cluster_blocks == 1) NamedBarrierSync(1, kComputeThreads);
  } else {
    if (threadIdx.x == kComputeThreads) Produce(share);
    __syncwarp();
  }
  if (share.cluster_blocks > 1) ClusterSync();
  if (is_computing) WriteOutputs<T, Weight, kGroups, kColumns>(share);
  // None may end while others read its sums. That orders nothing: outputs need not have arrived.
  if (share.cluster_blocks > 1) ClusterMeet();
#endif
}

}  // namespace quiver::quantized_few_rows

#endif  // QUIVER_KERNELS_CUDA_QUANTIZED_FEW_ROWS_SM90_CUH_
