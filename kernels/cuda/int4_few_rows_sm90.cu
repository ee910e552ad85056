#include <cuda.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/int4_few_rows_kernels.h"
#include "kernels/cuda/int4_few_rows_sm90.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_map.h"

namespace quiver {
namespace int4_few_rows {
namespace {

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
}  // namespace int4_few_rows

cudaError_t Int4FewRowsSm90(const Int4FewRowsTensors& tensors, const Int4Split& split,
                            cudaStream_t stream) {
  const int columns = tensors.rows <= 8    ? 8
                      : tensors.rows <= 16 ? 16
                      : tensors.rows <= 32 ? 32
                                           : int4_few_rows::kMaxColumns;
  int4_few_rows::Int4Params params = {};
  if (!int4_few_rows::EncodeX(tensors, columns, &params.x_map)) return cudaErrorNotSupported;
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
    if (tensors.weight.group == 32)
      return int4_few_rows::LaunchGroup<T, 32>(columns, &params, split, stream);
    if (tensors.weight.group == 64)
      return int4_few_rows::LaunchGroup<T, 64>(columns, &params, split, stream);
    return int4_few_rows::LaunchGroup<T, 128>(columns, &params, split, stream);
  });
}

}  // namespace quiver
