// The product for few rows by wgmma and the tensor copy engine, sm_90a.
//
// Work mapping: a block, or a cluster of two, takes up to 192 rows of W, and each block of a
// cluster one half of their columns, so that all multiprocessors have about as many bytes of W to
// read. A block's copying thread streams its share, 64 columns of all rows at a time, with the same
// columns of x beside them, through a ring. One warpgroup multiplies: W is the left operand, in
// tiles of 64 rows, and x^T the right one. The blocks of a cluster then leave their sums in their
// shared memory, and each adds up a part of the cluster's outputs from both, in the order of the
// columns.
//
// Bound: bytes of W against the device's memory. What stands between two products in a stream (the
// last sums, the kernels between them, the first columns of x) is hidden by the next one's copies
// of W, which go ahead as far as its ring; to that end its blocks come up beside this kernel's,
// late enough that the two do not share the memory for long.
#include <cuda.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/few_rows_kernels.h"
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_map.h"

namespace quiver {
namespace {

constexpr int kTileRows = 64;
constexpr int kMaxTiles = 3;
constexpr int kChunk = 64;  // columns, of 128 bytes: what the swizzle spans
constexpr int kRowBytes = kChunk * 2;
constexpr int kMaxStages = 16;
constexpr int kBarrierBytes = 2 * kMaxStages * 8;
constexpr int kComputeThreads = 128;
constexpr int kThreads = kComputeThreads + 32;

// Two blocks with this ring and some of the small kernels between two products fit a
// multiprocessor, so that a product's weights are under way before the product before has ended.
constexpr int kOverlapBytes = 109 * 1024;
// All that a block can have. Blocks with much of W to read gain more by it than by the overlap: on
// an H200 those of Qwen3-4B's gate and up did, with 760 KB each, and those of down, with 380 KB,
// did not.
constexpr int kWholeBytes = 227 * 1024;
constexpr int64_t kLongShareBytes = 512 * 1024;

struct Sm90Params {
  CUtensorMap weight_map;
  CUtensorMap x_map;
  void* y;
  int64_t y_stride;
  int rows;
  int out_features;
  int cluster_rows;  // of W
  int chunks;        // of a row of W
  int stages;
  int stage_bytes;
  int barrier_offset;
};

// Floats from one column of sums to the next: a multiple of 4 that lets a warp's stores, of eight
// rows of every other column, meet no bank conflict.
template <int kTiles>
constexpr int kSumsPitch = kTiles* kTileRows + 4;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

using namespace hopper;

// One block's share of a cluster's columns, and its ring.
struct Share {
  __device__ Share(const Sm90Params& params, uint32_t shared_address)
      : p(params), shared(shared_address) {
    cluster_blocks = ClusterBlocks();
    rank = ClusterRank();
    first_row = static_cast<int>(blockIdx.x) / cluster_blocks * p.cluster_rows;
    first_chunk = p.chunks * rank / cluster_blocks;
    count = p.chunks * (rank + 1) / cluster_blocks - first_chunk;
  }

  __device__ uint32_t full(int stage) const { return shared + p.barrier_offset + stage * 8; }
  __device__ uint32_t empty(int stage) const { return full(stage + kMaxStages); }
  __device__ uint32_t weight(int stage) const { return shared + stage * p.stage_bytes; }
  __device__ uint32_t x(int stage) const { return weight(stage) + p.cluster_rows * kRowBytes; }
  __device__ int column(int i) const { return (first_chunk + i) * kChunk; }

  const Sm90Params& p;
  uint32_t shared;
  int cluster_blocks;
  int rank;
  int first_row;
  int first_chunk;
  int count;  // of chunks
};

// The copying thread.
__device__ __forceinline__ void Produce(const Share& share) {
  const Sm90Params& p = share.p;
  const uint64_t policy = EvictFirstPolicy();
  const auto copy_weight = [&](int stage, int i) {
    BarrierArriveExpect(share.full(stage), p.stage_bytes);
    CopyBox2(share.weight(stage), &p.weight_map, share.column(i), share.first_row,
             share.full(stage), policy);
  };
  const auto copy_x = [&](int stage, int i) {
    CopyBox2(share.x(stage), &p.x_map, share.column(i), 0, share.full(stage));
  };

  const int ahead = min(p.stages, share.count);
  for (int i = 0; i < ahead; ++i) copy_weight(i, i);
  if (ahead == share.count) StartNextKernel();
  AwaitEarlierKernels();
  for (int i = 0; i < ahead; ++i) copy_x(i, i);
  int stage = 0;
  uint32_t parity = 0;
  for (int i = ahead; i < share.count; ++i) {
    BarrierWait(share.empty(stage), parity);
    copy_weight(stage, i);
    copy_x(stage, i);
    if (++stage == p.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  StartNextKernel();
}

// Sums of the block's columns: acc[t][j] as wgmma leaves them.
template <typename T, int kTiles, int kColumns>
__device__ __forceinline__ void Multiply(const Share& share, float (&acc)[kTiles][kColumns / 2]) {
  int stage = 0;
  uint32_t parity = 0;
  for (int i = 0; i < share.count; ++i) {
    const uint64_t weight = TileDescriptor(share.weight(stage), 0);
    const uint64_t x = TileDescriptor(share.x(stage), 0);
    BarrierWait(share.full(stage), parity);
    MmaFence();
#pragma unroll
    for (int step = 0; step < kChunk / 16; ++step) {
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        // 16 columns are 32 bytes of a row. A last tile's rows past the cluster's are whatever
        // follows in the ring; they do not touch the other rows.
        const uint64_t offset = (t * kTileRows * kRowBytes + step * 32) >> 4;
        MmaSharedNarrow<T>(acc[t], weight + offset, x + (step * 32 >> 4));
      }
    }
    MmaCommit();
    MmaWait<0>();
#pragma unroll
    for (int t = 0; t < kTiles; ++t) PinRegisters(acc[t]);
    if (threadIdx.x % 32 == 0) BarrierArrive(share.empty(stage));
    if (++stage == share.p.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
}

// Into shared memory, a column (of one row of x) after the other.
template <int kTiles, int kColumns>
__device__ __forceinline__ void StoreSums(const float (&acc)[kTiles][kColumns / 2], float* sums) {
  const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int t = 0; t < kTiles; ++t) {
#pragma unroll
    for (int j = 0; j < kColumns / 2; ++j) {
      sums[(j / 4 * 8 + column + j % 2) * kSumsPitch<kTiles> + t * kTileRows + row +
           j / 2 % 2 * 8] = acc[t][j];
    }
  }
}

// Adds up this block's part of the cluster's outputs, eight neighbours of one row of y at a time.
template <typename T, int kTiles>
__device__ __forceinline__ void WriteOutputs(const Share& share) {
  const Sm90Params& p = share.p;
  const int groups = p.cluster_rows / 8;
  const int step = share.cluster_blocks * kComputeThreads;
  for (int i = share.rank * kComputeThreads + static_cast<int>(threadIdx.x); i < p.rows * groups;
       i += step) {
    const int row = i / groups;
    const int feature = i % groups * 8;
    if (share.first_row + feature >= p.out_features) continue;
    const uint32_t from = share.shared + (row * kSumsPitch<kTiles> + feature) * sizeof(float);
    float sum[8] = {};
    for (int rank = 0; rank < share.cluster_blocks; ++rank) {
      const float4 low = LoadFromBlock(from, rank);
      const float4 high = LoadFromBlock(from + 16, rank);
      sum[0] += low.x;
      sum[1] += low.y;
      sum[2] += low.z;
      sum[3] += low.w;
      sum[4] += high.x;
      sum[5] += high.y;
      sum[6] += high.z;
      sum[7] += high.w;
    }
    Store8(static_cast<T*>(p.y) + row * p.y_stride + share.first_row + feature, sum);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

// kTiles: of 64 rows of W. kColumns: of x^T, that is, rows of x.
template <typename T, int kTiles, int kColumns>
__global__ void __launch_bounds__(kThreads, 2)
    FewRowsSm90Kernel(const __grid_constant__ Sm90Params p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char few_rows_ring[];
  const Share share(p, SharedAddress(few_rows_ring));
  if (threadIdx.x == kComputeThreads) {
    PrefetchTensorMap(&p.weight_map);
    PrefetchTensorMap(&p.x_map);
    for (int stage = 0; stage < p.stages; ++stage) {
      BarrierInit(share.full(stage), 1);
      BarrierInit(share.empty(stage), kComputeThreads / 32);
    }
    BarrierInitFence();
  }
  __syncthreads();

  // Through a shuffle, so that the compiler knows that a warp takes one way: products must not be
  // under divergent control flow.
  const int warp = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x) / 32, 0);
  const bool is_computing = warp < kComputeThreads / 32;
  if (is_computing) {
    float acc[kTiles][kColumns / 2] = {};
    AwaitEarlierKernels();
    Multiply<T, kTiles, kColumns>(share, acc);
    // All products have read the ring, which becomes the place of the sums.
    NamedBarrierSync(1, kComputeThreads);
    StoreSums<kTiles, kColumns>(acc, reinterpret_cast<float*>(few_rows_ring));
    if (share.cluster_blocks == 1) NamedBarrierSync(1, kComputeThreads);
  } else {
    if (threadIdx.x == kComputeThreads) Produce(share);
    __syncwarp();
  }
  if (share.cluster_blocks > 1) ClusterSync();
  if (is_computing) WriteOutputs<T, kTiles>(share);
  // None may end while others read its sums.
  if (share.cluster_blocks > 1) ClusterSync();
#endif
}

// A row-major matrix, in boxes of 64 columns of `box_rows` rows. What a box has beyond the matrix
// becomes zero.
bool EncodeMatrix(const void* base, int64_t stride, int64_t rows, int64_t cols, int box_rows,
                  HalfType type, CUtensorMap* map) {
  static const EncodeTensorMap encode = FindEncodeTensorMap();
  if (encode == nullptr) return false;
  const cuuint64_t dims[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t box[2] = {kChunk, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  return encode(map,
                type == HalfType::kF16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                       : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2, const_cast<void*>(base), dims, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// How W is dealt out. Depends on its shape and the device alone, and with it the order of
// summation.
struct Split {
  int cluster_blocks = 1;
  int cluster_rows = 0;
  int64_t clusters = 0;
  int shared_bytes = 0;  // of a block, at most
  int64_t cost = 0;
};

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

Split SplitFor(int cluster_blocks, int64_t out_features, int64_t chunks, int multiprocessors) {
  const int64_t places = std::max(1, multiprocessors / cluster_blocks);
  const int64_t rounds = CeilDivide(out_features, places * kMaxTiles * kTileRows);
  const int64_t block_chunks = CeilDivide(chunks, cluster_blocks);
  Split split;
  split.cluster_blocks = cluster_blocks;
  split.cluster_rows =
      static_cast<int>(CeilDivide(CeilDivide(out_features, places * rounds), 8) * 8);
  split.clusters = CeilDivide(out_features, split.cluster_rows);
  split.shared_bytes =
      block_chunks * split.cluster_rows * kRowBytes > kLongShareBytes ? kWholeBytes : kOverlapBytes;
  // In rows of 64 columns that a multiprocessor reads: of W, and of x, which come from the cache;
  // and what it costs to add up two blocks' sums. Fitted so that of the two splits of each of
  // Qwen3-4B's weights the one that is faster for 32 rows on an H200 costs less: whole rows for
  // q, k and v and for gate and up, halves for o and down.
  constexpr int64_t kXRows = 16;
  constexpr int64_t kClusterCost = 512;
  split.cost = rounds * block_chunks * (split.cluster_rows + kXRows) +
               (cluster_blocks > 1 ? kClusterCost : 0);
  return split;
}

template <typename T, int kTiles, int kColumns>
cudaError_t LaunchColumns(Sm90Params* params, const Split& split, cudaStream_t stream) {
  // A last tile may reach beyond its stage, but not beyond the block's memory.
  params->stage_bytes = (split.cluster_rows + kColumns) * kRowBytes;
  const int reach = std::max(0, kTiles * kTileRows * kRowBytes - params->stage_bytes);
  const int ring_bytes = split.shared_bytes - kBarrierBytes - reach;
  params->stages = std::min(kMaxStages, ring_bytes / params->stage_bytes);
  constexpr int kSumsBytes = kColumns * kSumsPitch<kTiles> * 4;
  static_assert(kSumsBytes + kBarrierBytes <= kOverlapBytes);
  static_assert(2 * (kTiles * kTileRows + kColumns) * kRowBytes + kBarrierBytes <= kOverlapBytes);
  params->barrier_offset = std::max(params->stages * params->stage_bytes + reach, kSumsBytes);
  const int bytes = params->barrier_offset + kBarrierBytes;

  const auto kernel = FewRowsSm90Kernel<T, kTiles, kColumns>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kWholeBytes);
  if (error != cudaSuccess) return error;
  return LaunchClusters(kernel, static_cast<unsigned>(split.clusters * split.cluster_blocks),
                        static_cast<unsigned>(split.cluster_blocks), kThreads,
                        static_cast<size_t>(bytes), stream, *params);
}

template <typename T, int kColumns>
cudaError_t LaunchTiles(Sm90Params* params, const Split& split, cudaStream_t stream) {
  switch ((split.cluster_rows + kTileRows - 1) / kTileRows) {
    case 1:
      return LaunchColumns<T, 1, kColumns>(params, split, stream);
    case 2:
      return LaunchColumns<T, 2, kColumns>(params, split, stream);
    default:
      return LaunchColumns<T, 3, kColumns>(params, split, stream);
  }
}

}  // namespace

cudaError_t FewRowsSm90(const FewRowsTensors& tensors, cudaStream_t stream) {
  int device = 0;
  int multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;

  const int64_t chunks = CeilDivide(tensors.in_features, kChunk);
  const Split whole = SplitFor(1, tensors.out_features, chunks, multiprocessors);
  const Split halved = SplitFor(2, tensors.out_features, chunks, multiprocessors);
  const Split& split = halved.cost < whole.cost ? halved : whole;
  const int columns = tensors.rows <= 8    ? 8
                      : tensors.rows <= 16 ? 16
                      : tensors.rows <= 32 ? 32
                                           : 64;
  Sm90Params params = {};
  if (!EncodeMatrix(tensors.weight, tensors.in_features, tensors.out_features, tensors.in_features,
                    split.cluster_rows, tensors.type, &params.weight_map) ||
      !EncodeMatrix(tensors.x, tensors.x_stride, tensors.rows, tensors.in_features, columns,
                    tensors.type, &params.x_map)) {
    return cudaErrorNotSupported;
  }
  params.y = tensors.y;
  params.y_stride = tensors.y_stride;
  params.rows = static_cast<int>(tensors.rows);
  params.out_features = static_cast<int>(tensors.out_features);
  params.cluster_rows = split.cluster_rows;
  params.chunks = static_cast<int>(chunks);
  return WithHalf(tensors.type, [&](auto element) {
    using T = decltype(element);
    switch (columns) {
      case 8:
        return LaunchTiles<T, 8>(&params, split, stream);
      case 16:
        return LaunchTiles<T, 16>(&params, split, stream);
      case 32:
        return LaunchTiles<T, 32>(&params, split, stream);
      default:
        return LaunchTiles<T, 64>(&params, split, stream);
    }
  });
}

}  // namespace quiver
