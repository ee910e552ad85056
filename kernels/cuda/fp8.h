// FP8 (E4M3) operands of products: rows of activations with a scale each, and weights with a scale
// for each row.
#ifndef QUIVER_KERNELS_CUDA_FP8_H_
#define QUIVER_KERNELS_CUDA_FP8_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/half_type.h"

namespace quiver {

// A matrix whose rows have a scale each, which makes a row's largest magnitude 448: an element is
// the closest to code * scale. A row that is not finite has a scale that is not.
struct Fp8Rows {
  void* codes = nullptr;    // [rows, cols], aligned to 16 bytes
  int64_t stride = 0;       // bytes from one row to the next, a multiple of 8
  float* scales = nullptr;  // [rows]
};

// Of QuantizeRows() and SwiGluFp8().
inline constexpr int64_t kMaxFp8Columns = 16384;

// x has `stride` elements from one row to the next, is aligned to 16 bytes and does not overlap
// `out`; cols, at most kMaxFp8Columns, and stride are multiples of 8. cudaErrorInvalidValue
// otherwise.
cudaError_t QuantizeRows(HalfType type, const void* x, int64_t stride, int64_t rows, int64_t cols,
                         const Fp8Rows& out, cudaStream_t stream);

// out[rows, cols] of `type`, dense: code * scales[row], rounded once. Dense and aligned to 16
// bytes, cols a multiple of 16. The next kernel in the stream may read `out` without waiting.
cudaError_t ExpandFp8(HalfType type, const void* codes, const float* scales, int64_t rows,
                      int64_t cols, void* out, cudaStream_t stream);

// Random codes, and scales with which values are about uniform in [-range, range).
cudaError_t RandomFp8(float range, uint64_t seed, int64_t rows, int64_t cols, void* codes,
                      float* scales, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_FP8_H_
