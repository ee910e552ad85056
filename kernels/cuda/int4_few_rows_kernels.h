// How int4_few_rows_sm90.cuh deals out W; for its launcher, tests and benches.
#ifndef QUIVER_KERNELS_CUDA_INT4_FEW_ROWS_KERNELS_H_
#define QUIVER_KERNELS_CUDA_INT4_FEW_ROWS_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/int4_few_rows.h"

namespace quiver {

// A cluster of `cluster_blocks` has `panels` panels of W, each of its blocks a share of their
// columns.
struct Int4Split {
  int cluster_blocks = 1;  // 1 .. 8
  int panels = 1;          // 1 .. kMaxInt4SplitPanels
};
inline constexpr int kMaxInt4SplitPanels = 6;

// The order of summation follows from it, and from whether there are more than 32 rows.
Int4Split ChooseInt4Split(int64_t n, int64_t k, int64_t rows, int multiprocessors);

// Int4FewRows() once that has checked the tensors.
cudaError_t Int4FewRowsSm90(const Int4FewRowsTensors& tensors, const Int4Split& split,
                            cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_INT4_FEW_ROWS_KERNELS_H_
