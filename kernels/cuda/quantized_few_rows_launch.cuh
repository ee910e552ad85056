// Launches quantized_few_rows_sm90.cuh's kernel. Host only.
#ifndef QUIVER_KERNELS_CUDA_QUANTIZED_FEW_ROWS_LAUNCH_CUH_
#define QUIVER_KERNELS_CUDA_QUANTIZED_FEW_ROWS_LAUNCH_CUH_

#include <cuda.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/quantized_few_rows_kernels.h"
#include "kernels/cuda/quantized_few_rows_sm90.cuh"
#include "kernels/cuda/tensor_map.h"

namespace quiver::quantized_few_rows {

// Of x^T, that a block takes.
constexpr int ColumnsOf(int64_t rows) {
  return rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= 32 ? 32 : kMaxColumns;
}

// x, in boxes of half a unit's columns of ColumnsOf(rows) rows. What a box has beyond it becomes
// zero.
inline bool EncodeX(const void* x, int64_t stride, int64_t rows, int64_t k, HalfType type,
                    CUtensorMap* map) {
  static const EncodeTensorMap encode = FindEncodeTensorMap();
  if (encode == nullptr) return false;
  const cuuint64_t dims[2] = {static_cast<cuuint64_t>(k), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t box[2] = {kHalfColumns, static_cast<cuuint32_t>(ColumnsOf(rows))};
  const cuuint32_t steps[2] = {1, 1};
  return encode(map,
                type == HalfType::kF16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                       : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2, const_cast<void*>(x), dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <typename T, typename Weight, int kGroups, int kGroupPanels, int kColumns>
cudaError_t LaunchColumns(Params* params, const QuantizedSplit& split, cudaStream_t stream) {
  constexpr int kLimit = kColumns == kMaxColumns ? kWholeBytes : kOverlapBytes;
  const int stage_bytes = split.panels * Weight::kUnitBytes;
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

  const auto kernel = QuantizedFewRowsKernel<T, Weight, kGroups, kGroupPanels, kColumns>;
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

template <typename T, typename Weight, int kColumns>
cudaError_t LaunchPanels(Params* params, const QuantizedSplit& split, cudaStream_t stream) {
  // Of 64 columns a block has its multiprocessor alone: as many groups as the registers allow.
  if constexpr (kColumns == kMaxColumns) {
    if constexpr (Weight::kMaxPanels > 4) {
      if (split.panels > 4) return LaunchColumns<T, Weight, 3, 2, kColumns>(params, split, stream);
    }
    return LaunchColumns<T, Weight, 4, 1, kColumns>(params, split, stream);
  } else {
    if (split.panels <= 2) return LaunchColumns<T, Weight, 2, 1, kColumns>(params, split, stream);
    if constexpr (Weight::kMaxPanels > 4) {
      if (split.panels > 4) return LaunchColumns<T, Weight, 2, 3, kColumns>(params, split, stream);
    }
    return LaunchColumns<T, Weight, 2, 2, kColumns>(params, split, stream);
  }
}

template <typename T, typename Weight>
cudaError_t LaunchRows(Params* params, const QuantizedSplit& split, cudaStream_t stream) {
  switch (ColumnsOf(params->rows)) {
    case 8:
      return LaunchPanels<T, Weight, 8>(params, split, stream);
    case 16:
      return LaunchPanels<T, Weight, 16>(params, split, stream);
    case 32:
      return LaunchPanels<T, Weight, 32>(params, split, stream);
    default:
      return LaunchPanels<T, Weight, kMaxColumns>(params, split, stream);
  }
}

}  // namespace quiver::quantized_few_rows

#endif  // QUIVER_KERNELS_CUDA_QUANTIZED_FEW_ROWS_LAUNCH_CUH_
