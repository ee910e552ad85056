// The kernel behind hopper_matmul.h. Only hopper_matmul_*.cu include this.
//
// Work mapping: the blocks stay for all tiles of a product, one block a multiprocessor. One thread
// of a block copies, 128 bytes of 128 rows of x and of the tile's rows of W at a time, into a
// ring; two warpgroups multiply 64 rows each. Each block of a pair copies one half of the tile's
// rows of W to both. Tiles are taken in groups of neighbouring rows, columns after columns, so that
// what all blocks read at a time is in the cache. The copy engine writes a tile while the next one
// is multiplied.
//
// Bound: the tensor cores, and under sustained load the power that they take.
#ifndef QUIVER_KERNELS_CUDA_HOPPER_MATMUL_KERNEL_CUH_
#define QUIVER_KERNELS_CUDA_HOPPER_MATMUL_KERNEL_CUH_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/hopper_matmul_epilogue.cuh"
#include "kernels/cuda/hopper_matmul_sm90.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/wide_mma.cuh"

namespace quiver::hopper_matmul {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// A place in the ring, and the parity of its turn.
template <int kStages>
struct RingPlace {
  __device__ __forceinline__ void Advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  int stage = 0;
  uint32_t parity = 0;
};

template <typename Shape>
struct Ring {
  __device__ uint32_t x(int stage) const { return shared + stage * Shape::kStageBytes; }
  __device__ uint32_t weight(int stage) const { return x(stage) + kXBytes; }
  __device__ uint32_t full(int stage) const { return shared + Shape::kBarrierOffset + stage * 8; }
  __device__ uint32_t empty(int stage) const { return full(stage + kMaxStages); }

  uint32_t shared;
};

struct TilePlace {
  int row;     // first
  int column;  // in tiles
};

__device__ __forceinline__ int NumTiles(const Params& p) { return p.row_tiles * p.column_tiles; }

__device__ __forceinline__ TilePlace PlaceOf(const Params& p, int tile, int rank) {
  const int group = tile / (p.group * p.column_tiles);
  const int first = group * p.group;
  const int size = min(p.group, p.row_tiles - first);
  const int rest = tile - first * p.column_tiles;
  return {((first + rest % size) * p.cluster_blocks + rank) * kTileRows, rest / size};
}

// The copying thread.
template <typename Shape>
class Producer {
 public:
  __device__ Producer(const Params& params, const Ring<Shape>& ring)
      : p_(params), ring_(ring), rank_(ClusterRank()) {}

  __device__ __forceinline__ void Run(int first_tile, int step) {
    // Weights do not depend on the kernel before.
    const int ahead = min(Shape::kStages, p_.chunks);
    TilePlace place = PlaceOf(p_, first_tile, rank_);
    for (int i = 0; i < ahead; ++i) CopyWeight(place, i, i);
    AwaitEarlierKernels();
    for (int i = 0; i < ahead; ++i) CopyX(place, i, i);
    RingPlace<Shape::kStages> next;
    for (int i = 0; i < ahead; ++i) next.Advance();
    // The first turn of a stage needs no wait: a barrier's phase before its first is complete.
    for (int tile = first_tile; tile < NumTiles(p_); tile += step) {
      place = PlaceOf(p_, tile, rank_);
      for (int i = tile == first_tile ? ahead : 0; i < p_.chunks; ++i) {
        BarrierWait(ring_.empty(next.stage), next.parity ^ 1);
        CopyWeight(place, i, next.stage);
        CopyX(place, i, next.stage);
        next.Advance();
      }
    }
    StartNextKernel();
  }

 private:
  __device__ __forceinline__ void CopyWeight(const TilePlace& place, int chunk, int stage) const {
    const uint32_t full = ring_.full(stage);
    BarrierArriveExpect(full, Shape::kStageBytes);
    const int row = place.column * p_.tile_step;
    const int column = chunk * p_.chunk_columns;
    if (p_.cluster_blocks == 1) {
      CopyBox2(ring_.weight(stage), &p_.weight_map, column, row, full);
      CopyBox2(ring_.weight(stage) + Shape::kHalfBytes, &p_.weight_map, column, row + p_.half_step,
               full);
    } else {
      CopyBox2ToBoth(ring_.weight(stage) + rank_ * Shape::kHalfBytes, &p_.weight_map, column,
                     row + rank_ * p_.half_step, full);
    }
  }

  __device__ __forceinline__ void CopyX(const TilePlace& place, int chunk, int stage) const {
    CopyBox2(ring_.x(stage), &p_.x_map, chunk * p_.chunk_columns, place.row, ring_.full(stage));
  }

  const Params& p_;
  const Ring<Shape> ring_;
  const int rank_;
};

// Both blocks of a pair have copied to the stage, so both must know that it is read.
template <typename Shape>
__device__ __forceinline__ void Release(const Params& p, const Ring<Shape>& ring, int stage) {
  const int lane = threadIdx.x % 32;
  if (lane < p.cluster_blocks) {
    if (p.cluster_blocks == 1) {
      BarrierArrive(ring.empty(stage));
    } else {
      BarrierArriveAt(ring.empty(stage), lane);
    }
  }
}

// One warpgroup's rows of a tile; X is what the operands are of.
template <typename X, int kColumns, typename Shape>
__device__ __forceinline__ void MultiplyTile(const Params& p, const Ring<Shape>& ring, int group,
                                             RingPlace<Shape::kStages>* next,
                                             float (&acc)[kColumns / 2]) {
  int before = 0;
  for (int i = 0; i < p.chunks; ++i) {
    const uint64_t x = TileDescriptor(ring.x(next->stage) + group * kGroupRows * kRowBytes, 0);
    const uint64_t weight = TileDescriptor(ring.weight(next->stage), 0);
    BarrierWait(ring.full(next->stage), next->parity);
    MmaFence();
#pragma unroll
    for (int step = 0; step < kRowBytes / 32; ++step) {
      const uint64_t offset = step * 32 >> 4;
      MmaWide<X, kColumns>(acc, x + offset, weight + offset, i > 0 || step > 0);
    }
    MmaCommit();
    // The chunk before has been read.
    MmaWait<1>();
    if (i > 0) Release(p, ring, before);
    before = next->stage;
    next->Advance();
  }
  MmaWait<0>();
  PinRegisters(acc);
  Release(p, ring, before);
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <typename T, typename X, MatmulEpilogue kEpilogue, int kColumns>
__global__ void __launch_bounds__(kThreads, 1)
    HopperMatmulKernel(const __grid_constant__ Params p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Shape = TileShape<kEpilogue, kColumns>;
  extern __shared__ __align__(1024) unsigned char hopper_matmul_shared[];
  const Ring<Shape> ring{SharedAddress(hopper_matmul_shared)};
  if (threadIdx.x == kComputeThreads) {
    PrefetchTensorMap(&p.weight_map);
    PrefetchTensorMap(&p.x_map);
    PrefetchTensorMap(&p.y_map);
    for (int stage = 0; stage < Shape::kStages; ++stage) {
      BarrierInit(ring.full(stage), 1);
      BarrierInit(ring.empty(stage), kComputeWarps * p.cluster_blocks);
    }
    BarrierInitFence();
  }
  if (p.cluster_blocks == 1) {
    __syncthreads();
  } else {
    ClusterSync();
  }

  const int first = static_cast<int>(blockIdx.x) / p.cluster_blocks;
  const int step = static_cast<int>(gridDim.x) / p.cluster_blocks;
  // Through a shuffle, so that the compiler knows that a warp takes one way: products must not be
  // under divergent control flow.
  const int group = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x) / 128, 0);
  if (group == kComputeThreads / 128) {
    GiveRegisters<40>();
    if (threadIdx.x == kComputeThreads) Producer<Shape>(p, ring).Run(first, step);
    __syncwarp();
  } else {
    TakeRegisters<232>();
    AwaitEarlierKernels();
    unsigned char* staging =
        hopper_matmul_shared + Shape::kOutOffset + threadIdx.x / 32 * Shape::kOutBytes;
    const int rank = ClusterRank();
    const int warp_row = static_cast<int>(threadIdx.x) / 32 * kWarpRows;
    RingPlace<Shape::kStages> next;
    Ahead<kEpilogue> ahead;
    float acc[kColumns / 2];
    TilePlace place = PlaceOf(p, first, rank);
    ahead.Next(p, place.row + warp_row);
    for (int tile = first; tile < NumTiles(p); tile += step) {
      const TilePlace next_place = PlaceOf(p, min(tile + step, NumTiles(p) - 1), rank);
      ahead.Load(p);
      ahead.Next(p, next_place.row + warp_row);
      [[maybe_unused]] const RowScales<X> scales(p, place.row + warp_row);
      MultiplyTile<X, kColumns>(p, ring, group, &next, acc);
      if constexpr (kIsFp8<X>) ScaleSums<kColumns>(p, scales, place.column, acc);
      FinishTile<T, kEpilogue, kColumns, Shape>(p, place.row + warp_row, place.column, &ahead,
                                                staging, acc);
      place = next_place;
    }
    if (threadIdx.x % 32 == 0) AwaitStores();
  }
  // The other block still copies to here, and tells it what it has read, until it has ended.
  if (p.cluster_blocks > 1) ClusterSync();
#endif
}

template <typename T, MatmulEpilogue kEpilogue, int kColumns>
cudaError_t LaunchTiles(const Params& params, int multiprocessors, cudaStream_t stream) {
  using Shape = TileShape<kEpilogue, kColumns>;
  const auto kernel = params.x_scales != nullptr
                          ? HopperMatmulKernel<T, __nv_fp8_e4m3, kEpilogue, kColumns>
                          : HopperMatmulKernel<T, T, kEpilogue, kColumns>;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  if (error != cudaSuccess) return error;
  const int clusters =
      std::min(multiprocessors / params.cluster_blocks, params.row_tiles * params.column_tiles);
  return LaunchClusters(kernel, static_cast<unsigned>(clusters * params.cluster_blocks),
                        static_cast<unsigned>(params.cluster_blocks), kThreads, Shape::kSharedBytes,
                        stream, params);
}

}  // namespace quiver::hopper_matmul

#endif  // QUIVER_KERNELS_CUDA_HOPPER_MATMUL_KERNEL_CUH_
