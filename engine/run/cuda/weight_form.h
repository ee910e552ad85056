// How a matrix of weights lies in device memory.
#ifndef QUIVER_ENGINE_RUN_CUDA_WEIGHT_FORM_H_
#define QUIVER_ENGINE_RUN_CUDA_WEIGHT_FORM_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/int4_matrix.h"

namespace quiver {

// Of rows and columns of a matrix in FP8, as cuBLASLt asks.
inline constexpr int kFp8Multiple = 16;

enum class WeightKind : uint8_t {
  kHalf,  // row-major and dense, of the compute type
  kInt4,  // an Int4Matrix
  kFp8,   // E4M3, row-major and dense, with an F32 scale for each row elsewhere
};

struct WeightForm {
  WeightKind kind = WeightKind::kHalf;
  int group = 0;  // of kInt4: columns that share a scale, as Int4Matrix has it
  // Not of kHalf: whether x becomes FP8, too, where it has many rows. With an F32 scale for each
  // row of an int4 matrix, then, as kFp8 has.
  bool fp8_inputs = false;

  // Rows of a matrix with others above it, or below it, come in multiples of this.
  int64_t row_multiple() const {
    return kind == WeightKind::kInt4 ? kInt4PanelRows : kind == WeightKind::kFp8 ? kFp8Multiple : 1;
  }
  // Of [rows, k]; also from the first row's place to row `rows`, a multiple of row_multiple().
  int64_t Bytes(int64_t rows, int64_t k) const {
    return kind == WeightKind::kInt4  ? Int4Bytes(rows, k, group)
           : kind == WeightKind::kFp8 ? rows * k
                                      : 2 * rows * k;
  }
  bool has_row_scales() const { return kind == WeightKind::kFp8 || fp8_inputs; }
  // What a matrix that is multiplied in another form than its own takes in that; an FP8 one is so
  // only where the library has no product of the kind, and then in parts.
  int64_t ExpandedBytes(int64_t rows, int64_t k) const {
    constexpr int64_t kPartBytes = int64_t{16} << 20;
    if (kind == WeightKind::kHalf) return 0;
    if (!fp8_inputs) return 2 * rows * k;
    return kind == WeightKind::kInt4 ? rows * k : std::min(2 * rows * k, kPartBytes);
  }
  // For files, and keys of maps.
  int64_t code() const {
    return static_cast<int64_t>(kind) + (fp8_inputs ? 128 : 0) + 256 * int64_t{group};
  }

  friend bool operator==(const WeightForm&, const WeightForm&) = default;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_WEIGHT_FORM_H_
