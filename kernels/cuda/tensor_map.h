// The driver's call that describes a matrix to Hopper's tensor copy engine. Host only.
#ifndef QUIVER_KERNELS_CUDA_TENSOR_MAP_H_
#define QUIVER_KERNELS_CUDA_TENSOR_MAP_H_

#include <cuda.h>
#include <cuda_runtime_api.h>

namespace quiver {

using EncodeTensorMap = decltype(&cuTensorMapEncodeTiled);

// From the driver, without linking to it; null if it has none. Keep the result: the search is slow.
inline EncodeTensorMap FindEncodeTensorMap() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                       cudaEnableDefault, &result) != cudaSuccess ||
      result != cudaDriverEntryPointSuccess) {
    return nullptr;
  }
  return reinterpret_cast<EncodeTensorMap>(function);
}

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_TENSOR_MAP_H_
