// The kernels behind few_rows_matmul.h; only few_rows_matmul.cu, their own files, tests and benches
// include this. Each takes what FewRowsMatmul() takes, once that has checked it.
#ifndef QUIVER_KERNELS_CUDA_FEW_ROWS_KERNELS_H_
#define QUIVER_KERNELS_CUDA_FEW_ROWS_KERNELS_H_

#include <cuda_runtime_api.h>

#include "kernels/cuda/few_rows_matmul.h"

namespace quiver {

// mma.sync kernel, few_rows_sm80.cu.
cudaError_t FewRowsSm80(const FewRowsTensors& tensors, cudaStream_t stream);

// Two blocks of this and some of the small kernels between two products fit a multiprocessor, so
// that a product's weights are under way before the product before has ended.
inline constexpr int kFewRowsOverlapBytes = 109 * 1024;

struct FewRowsSm90Options {
  int shared_bytes = kFewRowsOverlapBytes;  // of a block, at most
  // Lets the next kernel's blocks come up when the last of W is under way, not at once.
  bool starts_next_late = true;
  int prefetch_stages = 4;  // of W that the cache fetches while x is not there yet
  int cluster_blocks = 0;   // that share the summed columns: 1, 2, 4, 8, or 0 to choose by shape
};

// wgmma kernel, few_rows_sm90.cu; needs no workspace. cudaErrorNotSupported if the tensors cannot
// be described to the copy engine, or the options leave no room.
cudaError_t FewRowsSm90(const FewRowsTensors& tensors, const FewRowsSm90Options& options,
                        cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_FEW_ROWS_KERNELS_H_
