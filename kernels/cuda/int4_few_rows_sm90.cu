#include <cstdint>

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/int4.cuh"
#include "kernels/cuda/quantized_few_rows_kernels.h"
#include "kernels/cuda/quantized_few_rows_launch.cuh"
#include "kernels/cuda/quantized_few_rows_sm90.cuh"

namespace quiver {
namespace {

using quantized_few_rows::Params;

static_assert(kInt4PanelRows == kQuantizedPanelRows && kInt4UnitColumns == kQuantizedUnitColumns);

// A unit is as int4_matrix.h has it.
template <int kGroup>
struct Int4Weight {
  static constexpr int kUnitBytes = static_cast<int>(Int4UnitBytes(kGroup));
  static constexpr int kMaxPanels = kInt4Unit.max_panels;
  static constexpr bool kHasRowScales = false;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  static __device__ __forceinline__ void Copy(const Params& p, int panel, int unit, uint32_t shared,
                                              uint32_t barrier, uint64_t policy) {
    const int64_t at = static_cast<int64_t>(panel) * p.units + unit;
    hopper::CopyBytes(shared, p.weight + at * kUnitBytes, kUnitBytes, barrier, policy);
  }

  template <typename T>
  struct Unit {
    __device__ __forceinline__ Unit(const unsigned char* unit, int thread_in_group)
        : nibbles(unit), thread(thread_in_group) {
      const int row = thread / 32 * 16 + thread % 32 / 4;
      scales = reinterpret_cast<const uint32_t*>(unit + kInt4NibbleBytes) + row;
    }

    __device__ __forceinline__ void Operand(int step, uint32_t (&out)[4]) {
      if (step % 4 == 0) {
        four = reinterpret_cast<const uint4*>(nibbles + step / 4 * (kInt4NibbleBytes / 2))[thread];
      }
      const int place = step % 4;
      const uint32_t word = place == 0   ? four.x
                            : place == 1 ? four.y
                            : place == 2 ? four.z
                                         : four.w;
      const int g = step * 16 / kGroup * kInt4PanelRows;
      int4::Dequantize<T>(word, int4::RowScale<T>(scales[g]), int4::RowScale<T>(scales[g + 8]),
                          out);
    }

    const unsigned char* nibbles;
    const uint32_t* scales;
    int thread;
    uint4 four;
  };
#endif
};

}  // namespace

cudaError_t Int4FewRowsSm90(const Int4FewRowsTensors& tensors, const QuantizedSplit& split,
                            cudaStream_t stream) {
  const Int4Matrix& weight = tensors.weight;
  Params params = {};
  if (!quantized_few_rows::EncodeX(tensors.x, tensors.x_stride, tensors.rows, weight.k, weight.type,
                                   &params.x_map)) {
    return cudaErrorNotSupported;
  }
  params.weight = static_cast<const unsigned char*>(weight.data);
  params.y = tensors.y;
  params.y_stride = tensors.y_stride;
  params.rows = static_cast<int>(tensors.rows);
  params.out_features = static_cast<int>(weight.n);
  params.panels = static_cast<int>(Int4Panels(weight.n));
  params.units = static_cast<int>(Int4Units(weight.k));
  params.cluster_panels = split.panels;
  return WithHalf(weight.type, [&](auto element) {
    using T = decltype(element);
    using quantized_few_rows::LaunchRows;
    if (weight.group == 32) return LaunchRows<T, Int4Weight<32>>(&params, split, stream);
    if (weight.group == 64) return LaunchRows<T, Int4Weight<64>>(&params, split, stream);
    return LaunchRows<T, Int4Weight<128>>(&params, split, stream);
  });
}

}  // namespace quiver
