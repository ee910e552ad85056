#include <cstdint>

#include "kernels/cuda/few_rows_kernels.h"
#include "kernels/cuda/few_rows_matmul.h"
#include "kernels/cuda/half.cuh"

namespace quiver {
namespace {

constexpr int64_t kMaxOutFeatures = 524288;
constexpr int64_t kMaxInFeatures = 1 << 24;

bool IsValid(const FewRowsTensors& t) {
  return t.rows <= kMaxFewRows && t.workspace != nullptr &&
         reinterpret_cast<uintptr_t>(t.workspace) % 16 == 0 && t.out_features <= kMaxOutFeatures &&
         t.in_features <= kMaxInFeatures && IsVectorizable(t.x, t.x_stride, t.in_features) &&
         IsVectorizable(t.weight, t.in_features, t.in_features) &&
         IsVectorizable(t.y, t.y_stride, t.out_features);
}

}  // namespace

cudaError_t FewRowsMatmul(const FewRowsTensors& tensors, cudaStream_t stream) {
  if (!IsValid(tensors)) return cudaErrorInvalidValue;
  if (tensors.rows <= 0) return cudaSuccess;
  int device = 0;
  int major = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  if (major == 9) {
    error = FewRowsSm90(tensors, stream);
    if (error != cudaErrorNotSupported) return error;
  }
  return FewRowsSm80(tensors, stream);
}

}  // namespace quiver
