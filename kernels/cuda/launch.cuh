// Launching one kernel behind another in a stream without the gap between them: where the device
// can (sm_90 and up), a kernel's blocks come up while those of the kernel before still run.
#ifndef QUIVER_KERNELS_CUDA_LAUNCH_CUH_
#define QUIVER_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include <cstddef>

namespace quiver {

// Once every block of this kernel has called it or ended, the next kernel's blocks may come up.
__device__ __forceinline__ void StartNextKernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Every thread of a kernel started by Launch() calls this or WaitForEarlierKernels() before it
// reads what an earlier kernel wrote, and before it writes anything. Memory that no kernel writes
// may be read before. Pointers to what is read after must not be `const __restrict__`: such loads
// may be moved up.
__device__ __forceinline__ void AwaitEarlierKernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// In this order: the next kernel's blocks come up, and wait, as soon as all of this one's have.
__device__ __forceinline__ void WaitForEarlierKernels() {
  StartNextKernel();
  AwaitEarlierKernels();
}

// `cluster_blocks` neighbouring blocks form a cluster; more than 1 needs sm_90 or up.
template <typename... Params, typename... Args>
cudaError_t LaunchClusters(void (*kernel)(Params...), dim3 grid, unsigned cluster_blocks,
                           unsigned threads, size_t shared_bytes, cudaStream_t stream,
                           const Args&... args) {
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  int major = 0;
  error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute attributes[3] = {};
  unsigned count = 0;
  if (major >= 9) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
    // The same for all: a multiprocessor must be idle to divide its memory anew.
    attributes[count].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
    attributes[count++].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  }
  if (cluster_blocks > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {cluster_blocks, 1, 1};
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = count;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

template <typename... Params, typename... Args>
cudaError_t Launch(void (*kernel)(Params...), dim3 grid, unsigned threads, size_t shared_bytes,
                   cudaStream_t stream, const Args&... args) {
  return LaunchClusters(kernel, grid, 1, threads, shared_bytes, stream, args...);
}

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_LAUNCH_CUH_
