#include <cstdint>

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/int4_few_rows.h"
#include "kernels/cuda/int4_few_rows_kernels.h"

namespace quiver {
namespace {

constexpr int64_t kMaxOutFeatures = 524288;
constexpr int64_t kMaxInFeatures = 1 << 20;

bool IsValid(const Int4FewRowsTensors& t) {
  const Int4Matrix& weight = t.weight;
  return t.rows <= kMaxInt4Rows && weight.data != nullptr &&
         reinterpret_cast<uintptr_t>(weight.data) % 16 == 0 && IsInt4Group(weight.group) &&
         weight.n <= kMaxOutFeatures && weight.k <= kMaxInFeatures &&
         IsVectorizable(t.x, t.x_stride, weight.k) && IsVectorizable(t.y, t.y_stride, weight.n);
}

}  // namespace

cudaError_t Int4FewRows(const Int4FewRowsTensors& tensors, cudaStream_t stream) {
  if (!IsValid(tensors)) return cudaErrorInvalidValue;
  if (tensors.rows <= 0) return cudaSuccess;
  int device = 0;
  int major = 0;
  int multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  if (major != 9) return cudaErrorNotSupported;
  error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  const Int4Split split =
      ChooseInt4Split(tensors.weight.n, tensors.weight.k, tensors.rows, multiprocessors);
  return Int4FewRowsSm90(tensors, split, stream);
}

}  // namespace quiver
