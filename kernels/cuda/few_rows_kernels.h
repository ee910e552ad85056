// The kernels behind few_rows_matmul.h; only few_rows_matmul.cu, their own files, tests and benches
// include this. Each takes what FewRowsMatmul() takes, once that has checked it.
#ifndef QUIVER_KERNELS_CUDA_FEW_ROWS_KERNELS_H_
#define QUIVER_KERNELS_CUDA_FEW_ROWS_KERNELS_H_

#include <cuda_runtime_api.h>

#include "kernels/cuda/few_rows_matmul.h"

namespace quiver {

// mma.sync kernel, few_rows_sm80.cu.
cudaError_t FewRowsSm80(const FewRowsTensors& tensors, cudaStream_t stream);

// wgmma kernel, few_rows_sm90.cu; needs no workspace. cudaErrorNotSupported if the tensors cannot
// be described to the copy engine.
cudaError_t FewRowsSm90(const FewRowsTensors& tensors, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_FEW_ROWS_KERNELS_H_
