// What the kernel behind hopper_matmul.h and its launcher share: sizes and parameters. Only
// hopper_matmul*.cu and .cuh include this.
#ifndef QUIVER_KERNELS_CUDA_HOPPER_MATMUL_SM90_CUH_
#define QUIVER_KERNELS_CUDA_HOPPER_MATMUL_SM90_CUH_

#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/half_type.h"
#include "kernels/cuda/hopper_matmul.h"

namespace quiver::hopper_matmul {

inline constexpr int kTileRows = 128;
inline constexpr int kGroupRows = kTileRows / 2;  // of a warpgroup
inline constexpr int kWarpRows = 16;
inline constexpr int kRowBytes = 128;  // of a chunk of columns: what the swizzle spans
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
  CUtensorMap y_map;
  int rows;
  int y_columns;
  int chunk_columns;
  int chunks;
  // Of FP8 operands.
  const float* x_scales;
  const float* weight_scales;
  int out_features;
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

// Of y, as a tile of `columns` sums makes them.
constexpr int YColumns(MatmulEpilogue epilogue, int columns) {
  return epilogue == MatmulEpilogue::kSwiGlu ? columns / 2 : columns;
}

// Columns of y that a warp puts into shared memory at a time.
constexpr int PartColumns(MatmulEpilogue epilogue, int columns) {
  const int y_columns = YColumns(epilogue, columns);
  return y_columns > 128 ? y_columns / 2 : y_columns;
}

// Columns of a box that the copy engine takes from there: such that 8 rows of it meet no bank
// conflict, by a swizzle of 128 bytes or of 64, or by nature.
constexpr int BoxColumns(int part_columns) {
  return part_columns % 64 == 0 ? 64 : part_columns % 32 == 0 ? 32 : part_columns;
}

// Sizes that follow from a tile's columns.
template <MatmulEpilogue kEpilogue, int kColumns>
struct TileShape {
  static constexpr int kYColumns = YColumns(kEpilogue, kColumns);
  static constexpr int kPartColumns = PartColumns(kEpilogue, kColumns);
  static constexpr int kParts = kYColumns / kPartColumns;
  static constexpr int kPartBytes = kWarpRows * kPartColumns * 2;
  static constexpr int kHalfBytes = kColumns / 2 * kRowBytes;
  static constexpr int kStageBytes = kXBytes + 2 * kHalfBytes;

  static constexpr int StagesBeside(int parts) {
    const int stages =
        (kMaxSharedBytes - kBarrierBytes - kComputeWarps * kPartBytes * parts) / kStageBytes;
    return stages < kMaxStages ? stages : kMaxStages;
  }
  // All parts have a place of their own if that leaves the ring deep enough.
  static constexpr int kLeastRingBytes = 176 * 1024;
  static constexpr int kPlaces = StagesBeside(kParts) * kStageBytes >= kLeastRingBytes ? kParts : 1;
  static constexpr int kStages = StagesBeside(kPlaces);
  static constexpr int kOutOffset = kStages * kStageBytes;
  static constexpr int kOutBytes = kPlaces * kPartBytes;  // of a warp
  static constexpr int kBarrierOffset = kOutOffset + kComputeWarps * kOutBytes;
  static constexpr int kSharedBytes = kBarrierOffset + kBarrierBytes;
  static_assert(kColumns % 16 == 0 && kPartColumns % 8 == 0 && kYColumns % kPartColumns == 0);
  static_assert(kHalfBytes % 1024 == 0 && kStages >= 4 && kBarrierOffset % 8 == 0);
  // A swizzle counts from the address: every place is on a border of its pattern.
  static constexpr int kBoxColumns = BoxColumns(kPartColumns);
  static_assert(kPartBytes % (kBoxColumns == 64 ? 1024 : kBoxColumns == 32 ? 512 : 128) == 0);
};

// Of hopper_matmul_plain.cu, hopper_matmul_swiglu.cu and hopper_matmul_rope.cu.
cudaError_t LaunchPlain(HalfType type, int columns, const Params& params, int multiprocessors,
                        cudaStream_t stream);
cudaError_t LaunchSwiGlu(HalfType type, int columns, const Params& params, int multiprocessors,
                         cudaStream_t stream);
cudaError_t LaunchQkNormRope(HalfType type, int columns, const Params& params, int multiprocessors,
                             cudaStream_t stream);

}  // namespace quiver::hopper_matmul

#endif  // QUIVER_KERNELS_CUDA_HOPPER_MATMUL_SM90_CUH_
