// The kernel behind hopper_matmul.h. Only hopper_matmul_*.cu include this.
//
// Work mapping: the blocks stay for all tiles of a product, one block a multiprocessor. One thread
// of a block copies, 64 columns of 128 rows of x and of the tile's rows of W at a time, into a
// ring; two warpgroups multiply 64 rows each. Each block of a pair copies one half of the tile's
// rows of W to both. Tiles are taken in groups of neighbouring rows, columns after columns, so that
// what all blocks read at a time is in the cache.
//
// Bound: the tensor cores, and under sustained load the power that they take.
#ifndef QUIVER_KERNELS_CUDA_HOPPER_MATMUL_SM90_CUH_
#define QUIVER_KERNELS_CUDA_HOPPER_MATMUL_SM90_CUH_

#include <cuda.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/hopper_matmul.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/wide_mma.cuh"

namespace quiver::hopper_matmul {

inline constexpr int kTileRows = 128;
inline constexpr int kGroupRows = kTileRows / 2;  // of a warpgroup
inline constexpr int kChunk = 64;                 // columns, of 128 bytes: what the swizzle spans
inline constexpr int kRowBytes = kChunk * 2;
inline constexpr int kXBytes = kTileRows * kRowBytes;
inline constexpr int kComputeThreads = 256;
inline constexpr int kComputeWarps = kComputeThreads / 32;
inline constexpr int kThreads = kComputeThreads + 128;
inline constexpr int kMaxSharedBytes = 227 * 1024;
inline constexpr int kMaxStages = 8;
inline constexpr int kBarrierBytes = 2 * kMaxStages * 8;

struct Params {
  CUtensorMap x_map;
  CUtensorMap weight_map;
  void* y;
  int64_t y_stride;
  int rows;
  int y_columns;
  int chunks;
  // The tile in column n of tiles has the rows of W from n * tile_step on, and as many that are
  // half_step further.
  int tile_step;
  int half_step;
  int cluster_blocks;
  int row_tiles;  // of a whole cluster
  int column_tiles;
  int group;  // row tiles of a group
  QkNormRopeOperands rope;
};

// Sizes that follow from a tile's columns.
template <MatmulEpilogue kEpilogue, int kColumns>
struct TileShape {
  static constexpr int kYColumns = kEpilogue == MatmulEpilogue::kSwiGlu ? kColumns / 2 : kColumns;
  // Columns of y that a warp writes at a time, from 16 rows of shared memory of which a column
  // meets no bank conflict.
  static constexpr int kParts = (kYColumns + 127) / 128;
  static constexpr int kPartColumns = kYColumns / kParts;
  static constexpr int kPitch = kPartColumns * 2 % 128 == 0 || kPartColumns * 2 % 32 == 0
                                    ? kPartColumns * 2 + 16
                                    : kPartColumns * 2;
  static constexpr int kOutBytes = 16 * kPitch;
  static constexpr int kHalfBytes = kColumns / 2 * kRowBytes;
  static constexpr int kStageBytes = kXBytes + 2 * kHalfBytes;
  static constexpr int kFreeBytes = kMaxSharedBytes - kBarrierBytes - kComputeWarps * kOutBytes;
  static constexpr int kStages =
      kFreeBytes / kStageBytes < kMaxStages ? kFreeBytes / kStageBytes : kMaxStages;
  static constexpr int kOutOffset = kStages * kStageBytes;
  static constexpr int kBarrierOffset = kOutOffset + kComputeWarps * kOutBytes;
  static constexpr int kSharedBytes = kBarrierOffset + kBarrierBytes;
  static_assert(kColumns % 16 == 0 && kPartColumns % 8 == 0 && kPitch % 16 == 0);
  static_assert(kHalfBytes % 1024 == 0 && kStages >= 3 && kBarrierOffset % 8 == 0);
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

using namespace hopper;

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
    if (p_.cluster_blocks == 1) {
      CopyBox2(ring_.weight(stage), &p_.weight_map, chunk * kChunk, row, full);
      CopyBox2(ring_.weight(stage) + Shape::kHalfBytes, &p_.weight_map, chunk * kChunk,
               row + p_.half_step, full);
    } else {
      CopyBox2ToBoth(ring_.weight(stage) + rank_ * Shape::kHalfBytes, &p_.weight_map,
                     chunk * kChunk, row + rank_ * p_.half_step, full);
    }
  }

  __device__ __forceinline__ void CopyX(const TilePlace& place, int chunk, int stage) const {
    CopyBox2(ring_.x(stage), &p_.x_map, chunk * kChunk, place.row, ring_.full(stage));
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

// One warpgroup's rows of a tile.
template <typename T, int kColumns, typename Shape>
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
    for (int step = 0; step < kChunk / 16; ++step) {
      // 16 columns are 32 bytes of a row.
      const uint64_t offset = step * 32 >> 4;
      MmaWide<T, kColumns>(acc, x + offset, weight + offset, i > 0 || step > 0);
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

// Two 8 x 8 matrices below each other, and the two on their right.
__device__ __forceinline__ void StoreMatrices(uint32_t to, uint32_t a, uint32_t b, uint32_t c,
                                              uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a),
               "r"(b), "r"(c), "r"(d)
               : "memory");
}

__device__ __forceinline__ void StoreMatrices(uint32_t to, uint32_t a, uint32_t b) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(to), "r"(a), "r"(b)
               : "memory");
}

// A warp's 16 rows of y: `values` as wgmma leaves sums, through `staging` to memory in whole lines.
template <typename T, typename Shape>
__device__ __forceinline__ void WriteRows(const float (&values)[Shape::kPartColumns / 2],
                                          unsigned char* staging, T* y, int64_t y_stride, int rows,
                                          int columns) {
  constexpr int kPieces = Shape::kPartColumns / 8;
  const int lane = threadIdx.x % 32;
  const uint32_t to = SharedAddress(staging) + lane % 16 * Shape::kPitch + lane / 16 * 16;
  const auto pair = [&](int piece, int half) {
    return Narrow<T>(values[piece * 4 + half * 2], values[piece * 4 + half * 2 + 1]);
  };
#pragma unroll
  for (int piece = 0; piece + 1 < kPieces; piece += 2) {
    StoreMatrices(to + piece * 16, pair(piece, 0), pair(piece, 1), pair(piece + 1, 0),
                  pair(piece + 1, 1));
  }
  if constexpr (kPieces % 2 != 0) {
    StoreMatrices(to + (kPieces - 1) * 16, pair(kPieces - 1, 0), pair(kPieces - 1, 1));
  }
  __syncwarp();
#pragma unroll
  for (int base = 0; base < 16 * kPieces; base += 32) {
    const int i = base + lane;
    const int row = i / kPieces;
    const int piece = i % kPieces;
    if (row < min(rows, 16) && piece * 8 < columns) {
      *reinterpret_cast<uint4*>(y + row * y_stride + piece * 8) =
          *reinterpret_cast<const uint4*>(staging + row * Shape::kPitch + piece * 16);
    }
  }
  __syncwarp();
}

// silu(gate) * up. A large negative gate's exponential is infinite, and its reciprocal 0.
__device__ __forceinline__ float SiluTimes(float gate, float up) {
  constexpr float kLog2E = 1.4426950408889634f;
  float exponential;
  float factor;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(exponential) : "f"(-kLog2E * gate));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(factor) : "f"(1.0f + exponential));
  return gate * factor * up;
}

// Of a warp's 16 rows 32 cosines and 32 sines each, as the warp loads them: those of the first or
// of the second half of a half head. `position`: in lanes 0 to 15 of the warp's rows.
__device__ __forceinline__ void LoadAngles(const float* table, int position, int half,
                                           float4 (&angles)[8]) {
  const int lane = threadIdx.x % 32;
  const int column = half * 32 + lane % 16 / 8 * (kHopperMatmulHeadDim / 2) + lane % 8 * 4;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int64_t at = __shfl_sync(~0u, position, i * 2 + lane / 16);
    angles[i] = __ldg(reinterpret_cast<const float4*>(table + at * kHopperMatmulHeadDim + column));
  }
}

// A warp's 16 rows of up to two heads, as wgmma leaves them, of which `heads` and those after are
// left as they are.
template <int kHeads>
__device__ __forceinline__ void NormAndRotate(const QkNormRopeOperands& rope, int first_head,
                                              int position, unsigned char* staging,
                                              float (&acc)[kHeads * 64]) {
  const int normed_heads = rope.num_heads + rope.num_kv_heads;
  const int lane = threadIdx.x % 32;
  const int column = lane % 4 * 2;
  float4 angles[8];
  LoadAngles(rope.table, position, 0, angles);
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    if (first_head + h >= normed_heads) continue;
    const float* weight =
        (first_head + h < rope.num_heads ? rope.q_weight : rope.k_weight) + column;
    float factor[2];
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const float* pair = acc + h * 64 + i * 4 + below * 2;
        sum = fmaf(pair[0], pair[0], sum);
        sum = fmaf(pair[1], pair[1], sum);
      }
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      factor[below] = 1.0f / sqrtf(sum / kHopperMatmulHeadDim + rope.eps);
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float2 scale = __ldg(reinterpret_cast<const float2*>(weight + i * 8));
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        float* pair = acc + h * 64 + i * 4 + below * 2;
        pair[0] = pair[0] * factor[below] * scale.x;
        pair[1] = pair[1] * factor[below] * scale.y;
      }
    }
  }
  // A row of 32 cosines and 32 sines at a time through shared memory, in an order in which neither
  // side meets bank conflicts.
  float* const shared = reinterpret_cast<float*>(staging);
  const auto place = [&](int row, int word) { return row * 64 + (word ^ (row % 4 * 8)); };
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      *reinterpret_cast<float4*>(shared + place(i * 2 + lane / 16, lane % 16 * 4)) = angles[i];
    }
    __syncwarp();
    if (half == 0) LoadAngles(rope.table, position, 1, angles);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        const int row = lane / 4 + below * 8;
        const float2 cosine = *reinterpret_cast<float2*>(shared + place(row, i * 8 + column));
        const float2 sine = *reinterpret_cast<float2*>(shared + place(row, 32 + i * 8 + column));
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
          if (first_head + h >= normed_heads) continue;
          float* low = acc + h * 64 + (half * 4 + i) * 4 + below * 2;
          float* high = low + 32;
          const float2 first = make_float2(low[0], low[1]);
          const float2 second = make_float2(high[0], high[1]);
          low[0] = first.x * cosine.x - second.x * sine.x;
          low[1] = first.y * cosine.y - second.y * sine.y;
          high[0] = second.x * cosine.x + first.x * sine.x;
          high[1] = second.y * cosine.y + first.y * sine.y;
        }
      }
    }
    __syncwarp();
  }
}

// Rows of a warp before its sums are there: what their epilogue needs of memory.
template <MatmulEpilogue kEpilogue>
__device__ __forceinline__ int PositionOf(const Params& p, int row) {
  if constexpr (kEpilogue == MatmulEpilogue::kQkNormRope) {
    const int at = row + static_cast<int>(threadIdx.x) % 16;
    return at < p.rows ? p.rope.positions[at] : 0;
  }
  return 0;
}

// A warp's part of the sums becomes its part of y.
template <typename T, MatmulEpilogue kEpilogue, int kColumns, typename Shape>
__device__ __forceinline__ void FinishTile(const Params& p, int row, int column_tile, int position,
                                           unsigned char* staging, float (&acc)[kColumns / 2]) {
  if constexpr (kEpilogue == MatmulEpilogue::kQkNormRope) {
    static_assert(Shape::kPartColumns == kHopperMatmulHeadDim);
    const int head = column_tile * Shape::kParts;
    if (head < p.rope.num_heads + p.rope.num_kv_heads) {
      NormAndRotate<Shape::kParts>(p.rope, head, position, staging, acc);
    }
  }
#pragma unroll
  for (int part = 0; part < Shape::kParts; ++part) {
    constexpr int kCount = Shape::kPartColumns / 2;
    const int column = column_tile * Shape::kYColumns + part * Shape::kPartColumns;
    float values[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      values[i] = acc[part * kCount + i];
      if constexpr (kEpilogue == MatmulEpilogue::kSwiGlu) {
        values[i] = SiluTimes(values[i], acc[Shape::kYColumns / 2 + part * kCount + i]);
      }
    }
    WriteRows<T, Shape>(values, staging, static_cast<T*>(p.y) + row * p.y_stride + column,
                        p.y_stride, p.rows - row, p.y_columns - column);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <typename T, MatmulEpilogue kEpilogue, int kColumns>
__global__ void __launch_bounds__(kThreads, 1)
    HopperMatmulKernel(const __grid_constant__ Params p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Shape = TileShape<kEpilogue, kColumns>;
  extern __shared__ __align__(1024) unsigned char hopper_matmul_shared[];
  const Ring<Shape> ring{SharedAddress(hopper_matmul_shared)};
  if (threadIdx.x == kComputeThreads) {
    PrefetchTensorMap(&p.weight_map);
    PrefetchTensorMap(&p.x_map);
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
    RingPlace<Shape::kStages> next;
    float acc[kColumns / 2];
    for (int tile = first; tile < NumTiles(p); tile += step) {
      const TilePlace place = PlaceOf(p, tile, rank);
      const int row = place.row + static_cast<int>(threadIdx.x) / 32 * 16;
      const int position = PositionOf<kEpilogue>(p, row);
      MultiplyTile<T, kColumns>(p, ring, group, &next, acc);
      FinishTile<T, kEpilogue, kColumns, Shape>(p, row, place.column, position, staging, acc);
    }
  }
  // The other block still copies to here, and tells it what it has read, until it has ended.
  if (p.cluster_blocks > 1) ClusterSync();
#endif
}

template <typename T, MatmulEpilogue kEpilogue, int kColumns>
cudaError_t LaunchTiles(Params* params, int multiprocessors, cudaStream_t stream) {
  using Shape = TileShape<kEpilogue, kColumns>;
  const auto kernel = HopperMatmulKernel<T, kEpilogue, kColumns>;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  if (error != cudaSuccess) return error;
  const int clusters =
      std::min(multiprocessors / params->cluster_blocks, params->row_tiles * params->column_tiles);
  return LaunchClusters(kernel, static_cast<unsigned>(clusters * params->cluster_blocks),
                        static_cast<unsigned>(params->cluster_blocks), kThreads,
                        Shape::kSharedBytes, stream, *params);
}

// Of hopper_matmul_plain.cu, hopper_matmul_swiglu.cu and hopper_matmul_rope.cu.
cudaError_t LaunchPlain(HalfType type, int columns, Params* params, int multiprocessors,
                        cudaStream_t stream);
cudaError_t LaunchSwiGlu(HalfType type, int columns, Params* params, int multiprocessors,
                         cudaStream_t stream);
cudaError_t LaunchQkNormRope(HalfType type, int columns, Params* params, int multiprocessors,
                             cudaStream_t stream);

}  // namespace quiver::hopper_matmul

#endif  // QUIVER_KERNELS_CUDA_HOPPER_MATMUL_SM90_CUH_
