// Work mapping: a cluster of blocks has a few panels of 64 rows of W, each of its blocks a share of
// their units of 128 columns. In a block one thread copies units of W, and boxes of 128 columns of
// x, into two rings; warpgroups make W's nibbles into left operands of wgmma in registers and
// multiply, with x^T as the right operand. They share out the panels, or of few panels the units.
// Blocks then leave their sums in shared memory, and add them up in order across the cluster.
//
// Bound: bytes of W against the device's memory. The rings of two blocks fit a multiprocessor, so
// that a product's W is under way while the kernels before it still run; that of a few megabytes
// is there as a whole by the time its x is.
#include <cuda.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/hopper_narrow.cuh"
#include "kernels/cuda/int4.cuh"
#include "kernels/cuda/int4_few_rows.h"
#include "kernels/cuda/int4_few_rows_kernels.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_map.h"

namespace quiver {
namespace {

constexpr int kGroupThreads = 128;
constexpr int kHalfColumns = kInt4UnitColumns / 2;  // of 128 bytes of x: what the swizzle spans
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

struct Int4Params {
  CUtensorMap x_map;
  const unsigned char* weight;
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
constexpr int kSumsPitch = kInt4PanelRows + 4;

constexpr int XStageBytes(int columns) { return 2 * columns * kRowBytes; }
// Where a block has fewer panels than groups, groups that share a panel take turns at its units.
constexpr int Turns(int groups, int panels) { return panels < groups ? groups / panels : 1; }

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

using namespace hopper;

template <int kGroup, int kGroups, int kColumns>
struct Share {
  static constexpr int kXStages = kGroups == 3 ? 6 : 4;
  static constexpr int kUnitBytes = kInt4NibbleBytes + kInt4UnitColumns / kGroup * kInt4GroupBytes;
  static constexpr int kXRows = kColumns;
  static constexpr int kXBytes = 2 * kXRows * kRowBytes;

  __device__ Share(const Int4Params& params, uint32_t shared_address)
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

  const Int4Params& p;
  uint32_t shared;
  int cluster_blocks;
  int rank;
  int first_panel;
  int num_panels;
  int first_unit;
  int count;  // of units of each panel
};

// The copying thread. A unit that is done with frees its place in both rings.
template <typename S>
__device__ __forceinline__ void Produce(const S& share) {
  constexpr int kXStages = S::kXStages;
  const Int4Params& p = share.p;
  // W is read once, unless there are more rows of x than one block takes.
  const uint64_t policy = gridDim.y == 1 ? EvictFirstPolicy() : EvictLastPolicy();
  const auto copy_weight = [&](int stage, int i) {
    const uint32_t barrier = share.weight_full(stage);
    BarrierArriveExpect(barrier, share.num_panels * S::kUnitBytes);
    const unsigned char* from =
        p.weight +
        (static_cast<int64_t>(share.first_panel) * p.units + share.first_unit + i) * S::kUnitBytes;
    for (int panel = 0; panel < share.num_panels; ++panel) {
      CopyBytes(share.shared + share.weight(stage) + panel * S::kUnitBytes,
                from + static_cast<int64_t>(panel) * p.units * S::kUnitBytes, S::kUnitBytes,
                barrier, policy);
    }
  };
  const auto copy_x = [&](int i) {
    const int stage = i % kXStages;
    const int column = (share.first_unit + i) * kInt4UnitColumns;
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
template <typename T, int kGroup, int kGroups, int kGroupPanels, int kColumns>
__device__ __forceinline__ void Multiply(const Share<kGroup, kGroups, kColumns>& share,
                                         const unsigned char* ring, int group,
                                         float (&acc)[kGroupPanels][kColumns / 2]) {
  using S = Share<kGroup, kGroups, kColumns>;
  // Products of 16 columns that are under way while the operands of as many are made: fewer where
  // sums take the registers.
  constexpr int kSteps =
      kColumns < kMaxColumns && (kGroups > 2 || kGroupPanels * kColumns > 64) ? 2 : 4;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const int lane = thread % 32;
  const int row = thread / 32 * 16 + lane / 4;
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
      const unsigned char* unit = ring + share.weight(stage) + panel * S::kUnitBytes;
      const auto* scales = reinterpret_cast<const uint32_t*>(unit + kInt4NibbleBytes) + row;
      uint4 four;
#pragma unroll
      for (int begin = 0; begin < kInt4UnitColumns / 16; begin += kSteps) {
        if (begin % 4 == 0) {
          four = reinterpret_cast<const uint4*>(unit + begin / 4 * (kInt4NibbleBytes / 2))[thread];
        }
        uint32_t(&batch)[kSteps][4] = operands[begin / kSteps % 2];
#pragma unroll
        for (int s = 0; s < kSteps; ++s) {
          const int place = (begin + s) % 4;
          const uint32_t word = place == 0   ? four.x
                                : place == 1 ? four.y
                                : place == 2 ? four.z
                                             : four.w;
          const int g = (begin + s) * 16 / kGroup * kInt4PanelRows;
          int4::Dequantize<T>(word, int4::RowScale<T>(scales[g]), int4::RowScale<T>(scales[g + 8]),
                              batch[s]);
        }
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
template <typename T, int kGroup, int kGroups, int kColumns>
__device__ __forceinline__ void WriteOutputs(const Share<kGroup, kGroups, kColumns>& share) {
  constexpr int kPieces = kInt4PanelRows / 8;
  constexpr int kPartBytes = kColumns * kSumsPitch * 4;
  constexpr int kComputeThreads = kGroups * kGroupThreads;
  // Loads from another block take long: so many are under way at once.
  constexpr int kLoads = 4;
  const Int4Params& p = share.p;
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
    const int feature = (share.first_panel + panel) * kInt4PanelRows + piece * 8;
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
    Store8(static_cast<T*>(p.y) + (first_row + row) * p.y_stride + feature, sum);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

constexpr int Threads(int groups) { return groups * kGroupThreads + 32; }

// kGroups: warpgroups that multiply, each kGroupPanels panels. kColumns: of x^T, that is, rows of
// x.
template <typename T, int kGroup, int kGroups, int kGroupPanels, int kColumns>
__global__ void __launch_bounds__(Threads(kGroups), kColumns == kMaxColumns ? 1 : 2)
    Int4FewRowsKernel(const __grid_constant__ Int4Params p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr int kComputeThreads = kGroups * kGroupThreads;
  extern __shared__ __align__(1024) unsigned char int4_ring[];
  const Share<kGroup, kGroups, kColumns> share(p, SharedAddress(int4_ring));
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
      Multiply<T, kGroup, kGroups, kGroupPanels, kColumns>(share, int4_ring, group, acc);
    }
    // All products have read the rings, which become the place of the sums.
    NamedBarrierSync(1, kComputeThreads);
    auto* sums = reinterpret_cast<float*>(int4_ring);
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
  if (is_computing) WriteOutputs<T, kGroup, kGroups, kColumns>(share);
  // None may end while others read its sums. That orders nothing: outputs need not have arrived.
  if (share.cluster_blocks > 1) ClusterMeet();
#endif
}

// x, in boxes of half a unit's columns of `box_rows` rows. What a box has beyond it becomes zero.
bool EncodeX(const Int4FewRowsTensors& tensors, int box_rows, CUtensorMap* map) {
  static const EncodeTensorMap encode = FindEncodeTensorMap();
  if (encode == nullptr) return false;
  const cuuint64_t dims[2] = {static_cast<cuuint64_t>(tensors.weight.k),
                              static_cast<cuuint64_t>(tensors.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(tensors.x_stride) * 2};
  const cuuint32_t box[2] = {kHalfColumns, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  return encode(map,
                tensors.weight.type == HalfType::kF16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                                      : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2, const_cast<void*>(tensors.x), dims, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <typename T, int kGroup, int kGroups, int kGroupPanels, int kColumns>
cudaError_t LaunchColumns(Int4Params* params, const Int4Split& split, cudaStream_t stream) {
  constexpr int kLimit = kColumns == kMaxColumns ? kWholeBytes : kOverlapBytes;
  const int stage_bytes = split.panels * static_cast<int>(Int4UnitBytes(kGroup));
  params->turns = Turns(kGroups, split.panels);
  params->weight_offset = XStages(kGroups) * XStageBytes(kColumns);
  // At least two, for which the smallest kLimit has room.
  params->weight_stages =
      std::min(kMaxWeightStages, (kLimit - kBarrierBytes - params->weight_offset) / stage_bytes);
  // Each stage is those groups' alone that have a turn.
  params->weight_stages -= params->weight_stages % params->turns;
  const int ring_bytes = params->weight_offset + params->weight_stages * stage_bytes;
  const int sums_bytes = params->turns * split.panels * kColumns * kSumsPitch * 4;
  params->barrier_offset = std::max(ring_bytes, sums_bytes);

  const auto kernel = Int4FewRowsKernel<T, kGroup, kGroups, kGroupPanels, kColumns>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kLimit);
  if (error != cudaSuccess) return error;
  const auto clusters = static_cast<unsigned>((params->panels + split.panels - 1) / split.panels);
  const auto cluster_blocks = static_cast<unsigned>(split.cluster_blocks);
  const auto tiles = static_cast<unsigned>((params->rows + kColumns - 1) / kColumns);
  return LaunchClusters(
      kernel, dim3(clusters * cluster_blocks, tiles), cluster_blocks, Threads(kGroups),
      static_cast<size_t>(params->barrier_offset + kBarrierBytes), stream, *params);
}

template <typename T, int kGroup, int kColumns>
cudaError_t LaunchPanels(Int4Params* params, const Int4Split& split, cudaStream_t stream) {
  // Of 64 columns a block has its multiprocessor alone: as many groups as the registers allow.
  if constexpr (kColumns == kMaxColumns) {
    if (split.panels <= 4) return LaunchColumns<T, kGroup, 4, 1, kColumns>(params, split, stream);
    return LaunchColumns<T, kGroup, 3, 2, kColumns>(params, split, stream);
  } else {
    if (split.panels <= 2) return LaunchColumns<T, kGroup, 2, 1, kColumns>(params, split, stream);
    if (split.panels <= 4) return LaunchColumns<T, kGroup, 2, 2, kColumns>(params, split, stream);
    return LaunchColumns<T, kGroup, 2, 3, kColumns>(params, split, stream);
  }
}

template <typename T, int kGroup>
cudaError_t LaunchGroup(int columns, Int4Params* params, const Int4Split& split,
                        cudaStream_t stream) {
  switch (columns) {
    case 8:
      return LaunchPanels<T, kGroup, 8>(params, split, stream);
    case 16:
      return LaunchPanels<T, kGroup, 16>(params, split, stream);
    case 32:
      return LaunchPanels<T, kGroup, 32>(params, split, stream);
    default:
      return LaunchPanels<T, kGroup, kMaxColumns>(params, split, stream);
  }
}

}  // namespace

Int4Split ChooseInt4Split(int64_t n, int64_t k, int64_t rows, int multiprocessors) {
  // Microseconds of an H100: for a unit of W or of x that a block waits for, for a unit of W that a
  // multiprocessor reads, and for what a cluster takes to come up and to add up its sums. Fitted to
  // Qwen3-4B's four weights one after another, at 1 to 64 rows.
  constexpr double kWaitUs = 0.12;
  constexpr double kReadUs = 0.03;
  struct Cluster {
    int blocks;
    double us;
  };
  constexpr Cluster kClusters[] = {{1, 0}, {2, 2.5}, {4, 4.2}, {8, 5.5}};
  // Clusters that need nearly every multiprocessor at once wait for each other.
  const int64_t blocks_at_once = multiprocessors * (rows <= 32 ? 2 : 1);
  const auto places = std::max<int64_t>(1, blocks_at_once * 93 / 100);
  const int64_t panels = Int4Panels(n);
  const int64_t units = Int4Units(k);
  Int4Split best;
  double best_us = std::numeric_limits<double>::max();
  for (const Cluster& cluster : kClusters) {
    for (int some = 1; some <= kMaxInt4SplitPanels; ++some) {
      const int64_t blocks = (panels + some - 1) / some * cluster.blocks;
      const int64_t rounds = (blocks + places - 1) / places;
      const int64_t block_units = (units + cluster.blocks - 1) / cluster.blocks;
      const int64_t shared_by = (blocks + multiprocessors - 1) / multiprocessors;
      const double us = kWaitUs * static_cast<double>(rounds * block_units * (some + 1)) +
                        kReadUs * static_cast<double>(shared_by * block_units * some) + cluster.us;
      if (us < best_us) {
        best_us = us;
        best = {cluster.blocks, some};
      }
    }
  }
  return best;
}

cudaError_t Int4FewRowsSm90(const Int4FewRowsTensors& tensors, const Int4Split& split,
                            cudaStream_t stream) {
  const int columns = tensors.rows <= 8    ? 8
                      : tensors.rows <= 16 ? 16
                      : tensors.rows <= 32 ? 32
                                           : kMaxColumns;
  Int4Params params = {};
  if (!EncodeX(tensors, columns, &params.x_map)) return cudaErrorNotSupported;
  params.weight = static_cast<const unsigned char*>(tensors.weight.data);
  params.y = tensors.y;
  params.y_stride = tensors.y_stride;
  params.rows = static_cast<int>(tensors.rows);
  params.out_features = static_cast<int>(tensors.weight.n);
  params.panels = static_cast<int>(Int4Panels(tensors.weight.n));
  params.units = static_cast<int>(Int4Units(tensors.weight.k));
  params.cluster_panels = split.panels;
  return WithHalf(tensors.weight.type, [&](auto element) {
    using T = decltype(element);
    if (tensors.weight.group == 32) return LaunchGroup<T, 32>(columns, &params, split, stream);
    if (tensors.weight.group == 64) return LaunchGroup<T, 64>(columns, &params, split, stream);
    return LaunchGroup<T, 128>(columns, &params, split, stream);
  });
}

}  // namespace quiver
