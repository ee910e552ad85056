#include <cstdint>

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/int4_few_rows.h"
#include "kernels/cuda/quantized_few_rows_kernels.h"

namespace quiver {
namespace {

bool IsValid(const Int4FewRowsTensors& t) {
  const Int4Matrix& weight = t.weight;
  return t.rows <= kMaxInt4Rows && weight.data != nullptr &&
         reinterpret_cast<uintptr_t>(weight.data) % 16 == 0 && IsInt4Group(weight.group) &&
         weight.n <= kMaxQuantizedOutFeatures && weight.k <= kMaxQuantizedInFeatures &&
         IsVectorizable(t.x, t.x_stride, weight.k) && IsVectorizable(t.y, t.y_stride, weight.n);
}

}  // namespace

cudaError_t Int4FewRows(const Int4FewRowsTensors& tensors, cudaStream_t stream) {
  if (!IsValid(tensors)) return cudaErrorInvalidValue;
  if (tensors.rows <= 0) return cudaSuccess;
  int multiprocessors = 0;
  const cudaError_t error = HopperMultiprocessors(&multiprocessors);
  if (error != cudaSuccess) return error;
  const QuantizedSplit split = ChooseQuantizedSplit(kInt4Unit, tensors.weight.n, tensors.weight.k,
                                                    tensors.rows, multiprocessors);
  return Int4FewRowsSm90(tensors, split, stream);
}

}  // namespace quiver
