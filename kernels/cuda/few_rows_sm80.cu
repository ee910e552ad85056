// Work mapping: W is cut into tiles of 128 rows and each tile into chunks of 64 columns; all
// chunks, in order, are dealt evenly to one block a multiprocessor, so that every multiprocessor
// streams the same share of W. A tile that several blocks have parts of is summed up, in their
// order, by the block that comes last. In a block, warps share a tile's rows four ways and a
// chunk's columns two ways; W is the left operand of mma.sync and x^T the right one, eight rows of
// x at a time.
//
// Both operands are loaded 16 bytes a lane, eight neighbouring columns of one row, and take part in
// two products of 16 columns each. Which column stands in which place of a product does not matter
// as long as it is the same for both operands, so no transposition is needed.
//
// Bound: bytes of W against the device's memory. Copies into a ring of stages run ahead of the
// products, and those of W begin before the kernel before has ended.
#include <algorithm>
#include <cstdint>

#include "kernels/cuda/few_rows_kernels.h"
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/launch.cuh"

namespace quiver {
namespace {

constexpr int kTileRows = 128;
constexpr int kChunk = 64;
constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kRowBytes = kChunk * 2;
constexpr int kPieces = kRowBytes / 16;
constexpr int kWeightBytes = kTileRows * kRowBytes;
constexpr int64_t kMaxTiles = 4096;
// So that its product with the number of blocks fits 32 bits.
constexpr int64_t kMaxChunks = 1 << 22;
constexpr int64_t kCounterBytes = kMaxTiles * 4;
// A block has at most two tiles that others have parts of: its first and its last.
constexpr int kPartsPerBlock = 2;
constexpr unsigned kMinChunksPerBlock = 2;

struct FewRowsParams {
  const void* x;
  int64_t x_stride;
  const void* weight;
  void* y;
  int64_t y_stride;
  int rows;
  int out_features;
  int in_features;
  int chunks;      // of a tile
  unsigned total;  // chunks of all tiles
  unsigned* counters;
  float4* parts;
};

// kColumnTiles: groups of eight rows of x.
template <int kColumnTiles, int kStages>
struct Layout {
  static constexpr int kXBytes = kColumnTiles * 8 * kRowBytes;
  static constexpr int kStageBytes = kWeightBytes + kXBytes;
  static constexpr int kExchangeBytes = kColumnTiles * kThreads * 16;
  static constexpr int kBytes = kStages * kStageBytes + kExchangeBytes;
  static constexpr int kXCopies = (kColumnTiles * 8 * kPieces + kThreads - 1) / kThreads;
};

// Offset of a piece of 16 bytes of a row. Odd rows have their halves swapped, so that the eight
// lanes that load together, four of each of two rows, meet no bank conflict.
__device__ __forceinline__ int PieceOffset(int row, int piece) {
  return row * kRowBytes + ((piece ^ ((row & 1) << 2)) << 4);
}

// Copies 16 bytes, or writes 16 zero bytes where `valid` is false.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool valid) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;" ::"r"(address), "l"(global),
               "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// d += a b: a 16 x 16 of W, b 16 x 8 of x^T.
template <typename T>
__device__ __forceinline__ void Mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                    uint32_t a3, uint32_t b0, uint32_t b1) {
#define QUIVER_MMA(TYPE)                                                              \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE                 \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                       \
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1))
  if constexpr (std::is_same_v<T, __half>) {
    QUIVER_MMA("f16");
  } else {
    QUIVER_MMA("bf16");
  }
#undef QUIVER_MMA
}

template <typename T, int kColumnTiles, int kStages>
class Block {
 public:
  using Shape = Layout<kColumnTiles, kStages>;

  __device__ Block(const FewRowsParams& params, unsigned char* shared)
      : p_(params), shared_(shared) {
    const auto first = static_cast<int>(FirstChunk(blockIdx.x));
    first_tile_ = first / p_.chunks;
    first_chunk_ = first % p_.chunks;
    count_ = static_cast<int>(FirstChunk(blockIdx.x + 1)) - first;
  }

  __device__ void Run() {
    Place ahead = {first_tile_, first_chunk_};
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) {
      if (i < count_) CopyWeight(i, ahead);
      CommitCopies();
      Advance(&ahead);
    }
    WaitForEarlierKernels();
    LoadFirstX();

    float acc[2][kColumnTiles][4] = {};
    Place place = {first_tile_, first_chunk_};
    int begin = first_chunk_;
    for (int i = 0; i < count_; ++i) {
      WaitForCopies<kStages - 2>();
      __syncthreads();
      if (i + kStages - 1 < count_) {
        const int stage = (i + kStages - 1) % kStages;
        CopyWeight(stage, ahead);
        CopyX(stage, ahead.chunk);
        Advance(&ahead);
      }
      CommitCopies();
      Multiply(i % kStages, acc);
      const bool is_tile_end = place.chunk + 1 == p_.chunks;
      if (is_tile_end || i + 1 == count_) {
        FinishTile(place.tile, is_tile_end && begin == 0, acc);
        begin = 0;
      }
      Advance(&place);
    }
  }

 private:
  // Of block `block`, which has those up to the first of the block after it.
  __device__ unsigned FirstChunk(unsigned block) const { return block * p_.total / gridDim.x; }
  __device__ unsigned BlockOf(unsigned chunk) const {
    return ((chunk + 1) * gridDim.x - 1) / p_.total;
  }
  __device__ unsigned char* WeightStage(int stage) const {
    return shared_ + stage * Shape::kStageBytes;
  }
  __device__ unsigned char* XStage(int stage) const { return WeightStage(stage) + kWeightBytes; }

  struct Place {
    int tile;
    int chunk;
  };
  __device__ void Advance(Place* place) const {
    if (++place->chunk < p_.chunks) return;
    place->chunk = 0;
    ++place->tile;
  }

  __device__ void CopyWeight(int stage, Place place) const {
    const int piece = threadIdx.x % kPieces;
    const int column = place.chunk * kChunk + 8 * piece;
    const T* weight = static_cast<const T*>(p_.weight);
#pragma unroll
    for (int j = 0; j < kTileRows * kPieces / kThreads; ++j) {
      const int row = threadIdx.x / kPieces + j * (kThreads / kPieces);
      const int feature = place.tile * kTileRows + row;
      const bool valid = feature < p_.out_features && column < p_.in_features;
      const T* from =
          valid ? weight + static_cast<int64_t>(feature) * p_.in_features + column : weight;
      CopyAsync16(WeightStage(stage) + PieceOffset(row, piece), from, valid);
    }
  }

  // The thread's j-th piece of x for a chunk; false if it has none. `from` is null where x has no
  // such element.
  __device__ bool XPiece(int chunk, int j, int* offset, const T** from) const {
    const int index = threadIdx.x + j * kThreads;
    if (index >= kColumnTiles * 8 * kPieces) return false;
    const int row = index / kPieces;
    const int piece = index % kPieces;
    const int column = chunk * kChunk + 8 * piece;
    *offset = PieceOffset(row, piece);
    *from = row < p_.rows && column < p_.in_features
                ? static_cast<const T*>(p_.x) + row * p_.x_stride + column
                : nullptr;
    return true;
  }

  __device__ void CopyX(int stage, int chunk) const {
#pragma unroll
    for (int j = 0; j < Shape::kXCopies; ++j) {
      int offset;
      const T* from;
      if (!XPiece(chunk, j, &offset, &from)) continue;
      CopyAsync16(XStage(stage) + offset, from != nullptr ? from : static_cast<const T*>(p_.x),
                  from != nullptr);
    }
  }

  // x for the stages whose W is under way: by plain loads, as asynchronous copies complete in
  // order and would be waited for behind all of that.
  __device__ void LoadFirstX() const {
    uint4 value[kStages - 1][Shape::kXCopies];
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) {
#pragma unroll
      for (int j = 0; j < Shape::kXCopies; ++j) {
        int offset;
        const T* from;
        value[i][j] = make_uint4(0, 0, 0, 0);
        if (i < count_ && XPiece((first_chunk_ + i) % p_.chunks, j, &offset, &from) &&
            from != nullptr) {
          value[i][j] = *reinterpret_cast<const uint4*>(from);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) {
#pragma unroll
      for (int j = 0; j < Shape::kXCopies; ++j) {
        int offset;
        const T* from;
        if (i < count_ && XPiece(0, j, &offset, &from)) {
          *reinterpret_cast<uint4*>(XStage(i) + offset) = value[i][j];
        }
      }
    }
  }

  __device__ int RowGroup() const { return threadIdx.x / 32 % 4; }
  __device__ int Half() const { return threadIdx.x / 128; }

  __device__ void Multiply(int stage, float (&acc)[2][kColumnTiles][4]) const {
    const int lane_row = threadIdx.x % 32 / 4;
    const int piece = 4 * Half() + threadIdx.x % 4;
    const auto load = [piece](const unsigned char* from, int row) {
      return *reinterpret_cast<const uint4*>(from + PieceOffset(row, piece));
    };
    uint4 low[2];
    uint4 high[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = 32 * RowGroup() + 16 * i + lane_row;
      low[i] = load(WeightStage(stage), row);
      high[i] = load(WeightStage(stage), row + 8);
    }
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
      const uint4 x = load(XStage(stage), 8 * c + lane_row);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        Mma<T>(acc[i][c], low[i].x, high[i].x, low[i].y, high[i].y, x.x, x.y);
        Mma<T>(acc[i][c], low[i].z, high[i].z, low[i].w, high[i].w, x.z, x.w);
      }
    }
  }

  // Adds up the two halves of the columns, so that each warp has 16 of its 32 rows; then the tile's
  // parts, if it has several. Leaves `acc` zero.
  __device__ void FinishTile(int tile, bool is_whole, float (&acc)[2][kColumnTiles][4]) {
    auto* exchange = reinterpret_cast<float4*>(shared_ + kStages * Shape::kStageBytes);
    const bool is_second = Half() != 0;
    float4 mine[kColumnTiles];
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
      const float4 upper = make_float4(acc[0][c][0], acc[0][c][1], acc[0][c][2], acc[0][c][3]);
      const float4 lower = make_float4(acc[1][c][0], acc[1][c][1], acc[1][c][2], acc[1][c][3]);
      mine[c] = is_second ? lower : upper;
      exchange[c * kThreads + threadIdx.x] = is_second ? upper : lower;
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[0][c][i] = acc[1][c][i] = 0;
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
      AddTo(&mine[c], exchange[c * kThreads + (threadIdx.x ^ 128)]);
    }
    if (!is_whole && !SumParts(tile, mine)) return;
    Write(tile, mine);
  }

  __device__ static void AddTo(float4* sum, float4 more) {
    sum->x += more.x;
    sum->y += more.y;
    sum->z += more.z;
    sum->w += more.w;
  }

  // Hands in this block's part of `tile`. For the last block to do so, `mine` becomes the sum.
  __device__ bool SumParts(int tile, float4 (&mine)[kColumnTiles]) {
    __shared__ bool is_last;
    const auto tile_begin = static_cast<unsigned>(tile * p_.chunks);
    const unsigned first_block = BlockOf(tile_begin);
    const unsigned last_block = BlockOf(tile_begin + static_cast<unsigned>(p_.chunks) - 1);
    // Only the first of them may have begun with another tile, of which it then has a part too.
    const unsigned first_place = FirstChunk(first_block) < tile_begin ? 1 : 0;
    const auto part = [&](unsigned block) {
      const unsigned place = kPartsPerBlock * block + (block == first_block ? first_place : 0);
      return p_.parts + place * (kColumnTiles * kThreads) + threadIdx.x;
    };
    float4* to = part(blockIdx.x);
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) __stcg(to + c * kThreads, mine[c]);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      is_last = atomicAdd(&p_.counters[tile], 1u) == last_block - first_block;
      if (is_last) p_.counters[tile] = 0;
    }
    __syncthreads();
    if (!is_last) return false;
    __threadfence();
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) mine[c] = make_float4(0, 0, 0, 0);
#pragma unroll 4
    for (unsigned block = first_block; block <= last_block; ++block) {
      const float4* from = part(block);
#pragma unroll
      for (int c = 0; c < kColumnTiles; ++c) AddTo(&mine[c], __ldcg(from + c * kThreads));
    }
    return true;
  }

  // A lane has two neighbouring rows of y in two columns, eight apart. Pairs of lanes swap, so that
  // each has two neighbouring columns of one row.
  __device__ void Write(int tile, const float4 (&mine)[kColumnTiles]) const {
    const int lane_row = threadIdx.x % 32 / 4;
    const bool is_odd = lane_row % 2 != 0;
    const auto feature = static_cast<int>(tile * kTileRows) + 32 * RowGroup() + 16 * Half() +
                         lane_row - (is_odd ? 1 : 0);
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
      const int row = 8 * c + 2 * (threadIdx.x % 4) + (is_odd ? 1 : 0);
      const float upper = __shfl_xor_sync(~0u, is_odd ? mine[c].x : mine[c].y, 4);
      const float lower = __shfl_xor_sync(~0u, is_odd ? mine[c].z : mine[c].w, 4);
      if (row >= p_.rows) continue;
      auto* to = static_cast<T*>(p_.y) + row * p_.y_stride + feature;
      if (feature < p_.out_features) {
        *reinterpret_cast<uint32_t*>(to) =
            is_odd ? Narrow<T>(upper, mine[c].y) : Narrow<T>(mine[c].x, upper);
      }
      if (feature + 8 < p_.out_features) {
        *reinterpret_cast<uint32_t*>(to + 8) =
            is_odd ? Narrow<T>(lower, mine[c].w) : Narrow<T>(mine[c].z, lower);
      }
    }
  }

  const FewRowsParams& p_;
  unsigned char* shared_;
  int first_tile_;
  int first_chunk_;
  int count_;
};

template <typename T, int kColumnTiles, int kStages>
__global__ void __launch_bounds__(kThreads, 1)
    FewRowsKernel(const __grid_constant__ FewRowsParams p) {
  extern __shared__ __align__(128) unsigned char few_rows_shared[];
  Block<T, kColumnTiles, kStages>(p, few_rows_shared).Run();
}

template <typename T, int kColumnTiles, int kStages>
cudaError_t LaunchStages(const FewRowsParams& params, unsigned blocks, cudaStream_t stream) {
  constexpr int kBytes = Layout<kColumnTiles, kStages>::kBytes;
  const auto kernel = FewRowsKernel<T, kColumnTiles, kStages>;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  return Launch(kernel, blocks, kThreads, kBytes, stream, params);
}

// As many stages as fit: of 227 KiB of shared memory a block, as Hopper has it, or else of 99.
template <typename T, int kColumnTiles>
cudaError_t LaunchColumns(const FewRowsParams& params, unsigned blocks, bool is_deep,
                          cudaStream_t stream) {
  if (is_deep) {
    return LaunchStages < T, kColumnTiles, kColumnTiles == 8 ? 7 : 8 > (params, blocks, stream);
  }
  return LaunchStages < T, kColumnTiles, kColumnTiles == 8 ? 2 : 4 > (params, blocks, stream);
}

cudaError_t DeviceAttribute(cudaDeviceAttr attribute, int* value) {
  int device = 0;
  const cudaError_t error = cudaGetDevice(&device);
  return error != cudaSuccess ? error : cudaDeviceGetAttribute(value, attribute, device);
}

}  // namespace

size_t FewRowsWorkspaceBytes(int multiprocessors) {
  constexpr size_t kPartBytes = size_t{kTileRows} * kMaxFewRows * sizeof(float);
  return kCounterBytes + static_cast<size_t>(multiprocessors) * kPartsPerBlock * kPartBytes;
}

cudaError_t FewRowsSm80(const FewRowsTensors& tensors, cudaStream_t stream) {
  int multiprocessors = 0;
  int shared_bytes = 0;
  cudaError_t error = DeviceAttribute(cudaDevAttrMultiProcessorCount, &multiprocessors);
  if (error != cudaSuccess) return error;
  error = DeviceAttribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, &shared_bytes);
  if (error != cudaSuccess) return error;

  FewRowsParams params = {};
  params.x = tensors.x;
  params.x_stride = tensors.x_stride;
  params.weight = tensors.weight;
  params.y = tensors.y;
  params.y_stride = tensors.y_stride;
  params.rows = static_cast<int>(tensors.rows);
  params.out_features = static_cast<int>(tensors.out_features);
  params.in_features = static_cast<int>(tensors.in_features);
  params.chunks = (params.in_features + kChunk - 1) / kChunk;
  const int tiles = (params.out_features + kTileRows - 1) / kTileRows;
  if (int64_t{params.chunks} * tiles > kMaxChunks) return cudaErrorInvalidValue;
  params.total = static_cast<unsigned>(params.chunks * tiles);
  params.counters = static_cast<unsigned*>(tensors.workspace);
  params.parts = reinterpret_cast<float4*>(static_cast<char*>(tensors.workspace) + kCounterBytes);
  const auto blocks = static_cast<unsigned>(
      std::clamp<int64_t>(params.total / kMinChunksPerBlock, 1, multiprocessors));
  const bool is_deep = shared_bytes >= Layout<8, 7>::kBytes;
  return WithHalf(tensors.type, [&](auto element) {
    using T = decltype(element);
    if (params.rows <= 8) return LaunchColumns<T, 1>(params, blocks, is_deep, stream);
    if (params.rows <= 16) return LaunchColumns<T, 2>(params, blocks, is_deep, stream);
    if (params.rows <= 32) return LaunchColumns<T, 4>(params, blocks, is_deep, stream);
    return LaunchColumns<T, 8>(params, blocks, is_deep, stream);
  });
}

}  // namespace quiver
