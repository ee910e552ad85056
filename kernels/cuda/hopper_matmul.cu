#include <algorithm>
#include <climits>
#include <cstdint>

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/hopper_matmul.h"
#include "kernels/cuda/hopper_matmul_sm90.cuh"
#include "kernels/cuda/tensor_map.h"

namespace quiver {
namespace {

using hopper_matmul::kRowBytes;
using hopper_matmul::kTileRows;
using hopper_matmul::Params;

// Row tiles that are taken together: what blocks read of x at a time, and of W, are about as much.
constexpr int kGroupRows = 2048;

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Null if the driver has none.
EncodeTensorMap Encoder() {
  static const EncodeTensorMap encode = FindEncodeTensorMap();
  return encode;
}

bool IsValid(const QkNormRopeOperands& rope, int64_t out_features) {
  return rope.num_heads >= 0 && rope.num_kv_heads >= 0 &&
         (rope.num_heads == 0 || rope.q_weight != nullptr) &&
         (rope.num_kv_heads == 0 || rope.k_weight != nullptr) && rope.positions != nullptr &&
         rope.table != nullptr && out_features % kHopperMatmulHeadDim == 0 &&
         int64_t{rope.num_heads + rope.num_kv_heads} * kHopperMatmulHeadDim <= out_features;
}

bool IsFp8(const HopperMatmulTensors& t) { return t.x_scales != nullptr; }

bool IsValid(const HopperMatmulTensors& t, const HopperMatmulTile& tile) {
  if (IsFp8(t) != (t.weight_scales != nullptr) ||
      (IsFp8(t) && (t.in_features % 16 != 0 || t.x_stride % 16 != 0 || t.out_features % 2 != 0 ||
                    reinterpret_cast<uintptr_t>(t.weight_scales) % 8 != 0))) {
    return false;
  }
  const std::span<const HopperMatmulTile> tiles = HopperMatmulTiles(t.epilogue);
  const bool is_swiglu = t.epilogue == MatmulEpilogue::kSwiGlu;
  const int64_t y_columns = is_swiglu ? t.out_features / 2 : t.out_features;
  return std::find(tiles.begin(), tiles.end(), tile) != tiles.end() && t.rows <= INT_MAX / 2 &&
         t.out_features <= INT_MAX / 2 && t.in_features <= INT_MAX / 2 &&
         IsVectorizable(t.x, t.x_stride, t.in_features) &&
         IsVectorizable(t.weight, t.in_features, t.in_features) &&
         IsVectorizable(t.y, t.y_stride, y_columns) &&
         (t.epilogue != MatmulEpilogue::kQkNormRope || IsValid(t.rope, t.out_features));
}

// A row-major matrix, in boxes of `box_rows` by `box_columns`. What a box has beyond the matrix
// reads as zero.
bool EncodeMatrix(const void* base, int64_t stride, int64_t rows, int64_t columns, int box_rows,
                  int box_columns, CUtensorMapDataType type, CUtensorMap* map) {
  const EncodeTensorMap encode = Encoder();
  if (encode == nullptr) return false;
  const cuuint64_t dims[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const int size = type == CU_TENSOR_MAP_DATA_TYPE_UINT8 ? 1 : 2;
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride * size)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(box_columns),
                             static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const int box_bytes = box_columns * size;
  const CUtensorMapSwizzle swizzle = box_bytes == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                                     : box_bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                       : CU_TENSOR_MAP_SWIZZLE_NONE;
  return encode(map, type, 2, const_cast<void*>(base), dims, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace

cudaError_t HopperMatmulIsSupported(bool* is_supported) {
  *is_supported = false;
  int device = 0;
  int major = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  *is_supported = major == 9 && Encoder() != nullptr;
  return cudaSuccess;
}

cudaError_t HopperMatmul(const HopperMatmulTensors& tensors, const HopperMatmulTile& tile,
                         cudaStream_t stream) {
  if (!IsValid(tensors, tile)) return cudaErrorInvalidValue;
  if (tensors.rows <= 0) return cudaSuccess;
  int device = 0;
  int multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;

  Params params = {};
  const int half_columns = tile.columns / 2;
  const bool is_swiglu = tensors.epilogue == MatmulEpilogue::kSwiGlu;
  const int out_features = static_cast<int>(tensors.out_features);
  params.rows = static_cast<int>(tensors.rows);
  params.y_columns = is_swiglu ? out_features / 2 : out_features;
  const int box_columns =
      hopper_matmul::BoxColumns(hopper_matmul::PartColumns(tensors.epilogue, tile.columns));
  const auto y_type = tensors.type == HalfType::kF16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                                     : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  const auto x_type = IsFp8(tensors) ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : y_type;
  params.chunk_columns = IsFp8(tensors) ? kRowBytes : kRowBytes / 2;
  if (!EncodeMatrix(tensors.x, tensors.x_stride, tensors.rows, tensors.in_features, kTileRows,
                    params.chunk_columns, x_type, &params.x_map) ||
      !EncodeMatrix(tensors.weight, tensors.in_features, tensors.out_features, tensors.in_features,
                    half_columns, params.chunk_columns, x_type, &params.weight_map) ||
      !EncodeMatrix(tensors.y, tensors.y_stride, tensors.rows, params.y_columns,
                    hopper_matmul::kWarpRows, box_columns, y_type, &params.y_map)) {
    return cudaErrorNotSupported;
  }
  params.chunks = static_cast<int>(CeilDivide(tensors.in_features, params.chunk_columns));
  params.x_scales = tensors.x_scales;
  params.weight_scales = tensors.weight_scales;
  params.out_features = out_features;
  // A gate and what it lets through in one tile.
  params.tile_step = is_swiglu ? half_columns : tile.columns;
  params.half_step = is_swiglu ? out_features / 2 : half_columns;
  params.cluster_blocks = tile.cluster_blocks;
  params.row_tiles =
      static_cast<int>(CeilDivide(tensors.rows, int64_t{kTileRows} * tile.cluster_blocks));
  params.column_tiles = static_cast<int>(CeilDivide(params.y_columns, params.tile_step));
  params.group = kGroupRows / (kTileRows * tile.cluster_blocks);
  params.rope = tensors.rope;
  switch (tensors.epilogue) {
    case MatmulEpilogue::kSwiGlu:
      return LaunchSwiGlu(tensors.type, tile.columns, params, multiprocessors, stream);
    case MatmulEpilogue::kQkNormRope:
      return LaunchQkNormRope(tensors.type, tile.columns, params, multiprocessors, stream);
    default:
      return LaunchPlain(tensors.type, tile.columns, params, multiprocessors, stream);
  }
}

}  // namespace quiver
