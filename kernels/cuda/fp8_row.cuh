// A row of elements, however they are made, to FP8 by a block that keeps it in registers until its
// scale is known.
#ifndef QUIVER_KERNELS_CUDA_FP8_ROW_CUH_
#define QUIVER_KERNELS_CUDA_FP8_ROW_CUH_

#include <cstdint>

#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/fp8.h"

namespace quiver::fp8 {

inline constexpr int kMaxRowThreads = 512;
static_assert(kMaxFp8Columns == 4 * 8 * kMaxRowThreads);

// load(column, value) makes eight neighbouring elements; a thread has up to kPieces times eight.
// All are made before the first code is written.
template <int kPieces, typename Load>
__device__ __forceinline__ void QuantizeRow(int64_t row, int cols, const Fp8Rows& out,
                                            const Load& load) {
  __shared__ float partial[kMaxRowThreads / 32];
  const int first = 8 * static_cast<int>(threadIdx.x);
  const int step = 8 * static_cast<int>(blockDim.x);
  float value[kPieces][8];
  float most = 0;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int column = first + p * step;
    if (column >= cols) break;
    load(column, value[p]);
#pragma unroll
    for (const float v : value[p]) most = LargerMagnitude(most, v);
  }
  const Scale scale(BlockMax(most, partial));
  auto* codes = static_cast<unsigned char*>(out.codes) + row * out.stride;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int column = first + p * step;
    if (column < cols) Store8(codes + column, value[p], scale.inverse);
  }
  if (threadIdx.x == 0) out.scales[row] = scale.value;
}

// Pieces and threads of a block for rows of `cols` columns.
struct RowSplit {
  explicit RowSplit(int64_t cols)
      : pieces(static_cast<int>((cols / 8 + kMaxRowThreads - 1) / kMaxRowThreads)),
        threads(static_cast<unsigned>(((cols / 8 + pieces - 1) / pieces + 31) / 32 * 32)) {}
  int pieces;
  unsigned threads;
};

}  // namespace quiver::fp8

#endif  // QUIVER_KERNELS_CUDA_FP8_ROW_CUH_
