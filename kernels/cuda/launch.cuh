// Launching one kernel behind another in a stream without the gap between them: where the device
// can (sm_90 and up), a kernel's blocks come up while those of the kernel before still run.
#ifndef QUIVER_KERNELS_CUDA_LAUNCH_CUH_
#define QUIVER_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <cstddef>

namespace quiver {

// Every thread of a kernel started by Launch() calls this before it reads what an earlier kernel
// wrote, and before it writes anything. Memory that no kernel writes may be read before. Pointers
// to what is read after must not be `const __restrict__`: such loads may be moved up.
__device__ __forceinline__ void WaitForEarlierKernels() {
#if __CUDA_ARCH__ >= 900
  // In this order: the next kernel's blocks come up, and wait, as soon as all of this one's have.
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

template <typename... Params, typename... Args>
cudaError_t Launch(void (*kernel)(Params...), dim3 grid, unsigned threads, size_t shared_bytes,
                   cudaStream_t stream, const Args&... args) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  int major = 0;
  error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute overlap = {};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = major >= 9 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_LAUNCH_CUH_
