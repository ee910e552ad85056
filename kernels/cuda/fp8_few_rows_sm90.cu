#include <cuda.h>

#include <cstdint>

#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/quantized_few_rows_kernels.h"
#include "kernels/cuda/quantized_few_rows_launch.cuh"
#include "kernels/cuda/quantized_few_rows_sm90.cuh"
#include "kernels/cuda/tensor_map.h"

namespace quiver {
namespace {

using quantized_few_rows::Params;

// A row of a unit is 128 bytes, which the copy's swizzle spans: 16 bytes at c of row r are at
// c ^ r % 8.
constexpr int kRowBytes = kQuantizedUnitColumns;
constexpr int kSwizzledRows = 8;

struct Fp8Weight {
  static constexpr int kUnitBytes = kQuantizedPanelRows * kRowBytes;
  static constexpr int kMaxPanels = kFp8Unit.max_panels;
  static constexpr bool kHasRowScales = true;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  static __device__ __forceinline__ void Copy(const Params& p, int panel, int unit, uint32_t shared,
                                              uint32_t barrier, uint64_t policy) {
    hopper::CopyBox2(shared, &p.weight_map, unit * kQuantizedUnitColumns,
                     panel * kQuantizedPanelRows, barrier, policy);
  }

  template <typename T>
  struct Unit {
    __device__ __forceinline__ Unit(const unsigned char* unit, int thread) {
      const int lane = thread % 32;
      row = unit + (thread / 32 * 16 + lane / 4) * kRowBytes + lane % 4 * 2;
      swizzle = lane / 4 % kSwizzledRows;
    }

    __device__ __forceinline__ void Operand(int step, uint32_t (&out)[4]) {
      const unsigned char* low = row + ((step ^ swizzle) * 16);
      fp8::LeftOperand<T>(low, low + 8 * kRowBytes, out);
    }

    const unsigned char* row;
    int swizzle;
  };
#endif
};

// W, in boxes of a unit. What a box has beyond it becomes zero.
bool EncodeWeight(const Fp8FewRowsTensors& tensors, CUtensorMap* map) {
  static const EncodeTensorMap encode = FindEncodeTensorMap();
  if (encode == nullptr) return false;
  const cuuint64_t dims[2] = {static_cast<cuuint64_t>(tensors.in_features),
                              static_cast<cuuint64_t>(tensors.out_features)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(tensors.in_features)};
  const cuuint32_t box[2] = {kQuantizedUnitColumns, kQuantizedPanelRows};
  const cuuint32_t steps[2] = {1, 1};
  return encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<void*>(tensors.codes), dims,
                strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace

cudaError_t Fp8FewRowsSm90(const Fp8FewRowsTensors& tensors, const QuantizedSplit& split,
                           cudaStream_t stream) {
  Params params = {};
  if (!quantized_few_rows::EncodeX(tensors.x, tensors.x_stride, tensors.rows, tensors.in_features,
                                   tensors.type, &params.x_map) ||
      !EncodeWeight(tensors, &params.weight_map)) {
    return cudaErrorNotSupported;
  }
  params.row_scales = tensors.scales;
  params.y = tensors.y;
  params.y_stride = tensors.y_stride;
  params.rows = static_cast<int>(tensors.rows);
  params.out_features = static_cast<int>(tensors.out_features);
  params.panels = static_cast<int>(QuantizedPanels(tensors.out_features));
  params.units = static_cast<int>(QuantizedUnits(tensors.in_features));
  params.cluster_panels = split.panels;
  return WithHalf(tensors.type, [&](auto element) {
    return quantized_few_rows::LaunchRows<decltype(element), Fp8Weight>(&params, split, stream);
  });
}

}  // namespace quiver
