#include <cstdint>

#include "kernels/cuda/fp8_few_rows.h"
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/quantized_few_rows_kernels.h"

namespace quiver {
namespace {

// Of both sizes of W.
constexpr int64_t kMultiple = 16;

bool IsValid(const Fp8FewRowsTensors& t) {
  return t.rows <= kMaxFp8Rows && t.out_features > 0 && t.in_features > 0 &&
         t.out_features <= kMaxQuantizedOutFeatures && t.in_features <= kMaxQuantizedInFeatures &&
         t.out_features % kMultiple == 0 && t.in_features % kMultiple == 0 &&
         reinterpret_cast<uintptr_t>(t.codes) % 16 == 0 && t.codes != nullptr &&
         t.scales != nullptr && IsVectorizable(t.x, t.x_stride, t.in_features) &&
         IsVectorizable(t.y, t.y_stride, t.out_features);
}

}  // namespace

cudaError_t Fp8FewRows(const Fp8FewRowsTensors& tensors, cudaStream_t stream) {
  if (!IsValid(tensors)) return cudaErrorInvalidValue;
  if (tensors.rows <= 0) return cudaSuccess;
  int multiprocessors = 0;
  const cudaError_t error = HopperMultiprocessors(&multiprocessors);
  if (error != cudaSuccess) return error;
  const QuantizedSplit split = ChooseQuantizedSplit(
      kFp8Unit, tensors.out_features, tensors.in_features, tensors.rows, multiprocessors);
  return Fp8FewRowsSm90(tensors, split, stream);
}

}  // namespace quiver
