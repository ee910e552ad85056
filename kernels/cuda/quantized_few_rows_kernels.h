// How quantized_few_rows_sm90.cuh deals out W; for its launchers, tests and benches.
#ifndef QUIVER_KERNELS_CUDA_QUANTIZED_FEW_ROWS_KERNELS_H_
#define QUIVER_KERNELS_CUDA_QUANTIZED_FEW_ROWS_KERNELS_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/fp8_few_rows.h"
#include "kernels/cuda/int4_few_rows.h"

namespace quiver {

// W is cut into panels of rows, one under another, and a panel into units of columns.
inline constexpr int kQuantizedPanelRows = 64;
inline constexpr int kQuantizedUnitColumns = 128;
constexpr int64_t QuantizedPanels(int64_t n) {
  return (n + kQuantizedPanelRows - 1) / kQuantizedPanelRows;
}
constexpr int64_t QuantizedUnits(int64_t k) {
  return (k + kQuantizedUnitColumns - 1) / kQuantizedUnitColumns;
}
inline constexpr int64_t kMaxQuantizedOutFeatures = 524288;
inline constexpr int64_t kMaxQuantizedInFeatures = 1 << 20;

// A cluster of `cluster_blocks` has `panels` panels of W, each of its blocks a share of their
// columns.
struct QuantizedSplit {
  int cluster_blocks = 1;  // 1 .. 8
  int panels = 1;          // 1 .. QuantizedUnit::max_panels
};

// What a unit takes of a multiprocessor's time and memory.
struct QuantizedUnit {
  // Microseconds of an H100: that a block waits for a unit of W or of x, and that a multiprocessor
  // takes to read one of W.
  double wait_us;
  double read_us;
  // Of as many panels two units fit beside x.
  int max_panels;
};
inline constexpr QuantizedUnit kInt4Unit = {0.12, 0.03, 6};
inline constexpr QuantizedUnit kFp8Unit = {0.12, 0.05, 4};

// The order of summation follows from it, and from whether there are more than 32 rows.
QuantizedSplit ChooseQuantizedSplit(const QuantizedUnit& unit, int64_t n, int64_t k, int64_t rows,
                                    int multiprocessors);

// Of the current device; cudaErrorNotSupported if it is not Hopper's.
cudaError_t HopperMultiprocessors(int* multiprocessors);

// Int4FewRows() and Fp8FewRows() once they have checked the tensors.
cudaError_t Int4FewRowsSm90(const Int4FewRowsTensors& tensors, const QuantizedSplit& split,
                            cudaStream_t stream);
cudaError_t Fp8FewRowsSm90(const Fp8FewRowsTensors& tensors, const QuantizedSplit& split,
                           cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_QUANTIZED_FEW_ROWS_KERNELS_H_
