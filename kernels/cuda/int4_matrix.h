// int4 matrices as the device keeps them: ordered so that a thread finds the operands of its tensor
// core products in 16 bytes of its own.
//
// A matrix [n, k] is cut into panels of 64 rows, one under another, and a panel into units of 128
// columns, left to right. A unit is 4096 bytes of nibbles and, for each of its groups of columns in
// order, 64 words, a row's each: its scale in the low half, and in the high half an offset, both of
// the matrix's 16-bit type. An element is (nibble - zero) * scale. As a nibble q is made into the
// 16-bit number Int4Base() + q by its bits alone, the offset is Int4Base() + zero, which is exact.
//
// Nibbles: byte 2048 h + 16 i of a unit begins the four words of thread i of 128, for columns 64 h
// to 64 h + 63. Thread i has rows 16 (i / 32) + i % 32 / 4, say r, and r + 8; word j of it is for
// 16 columns from c = 16 j + 2 (i % 4) on: nibbles 0 and 4 are columns c and c + 1 of row r,
// nibbles 1 and 5 of row r + 8, nibbles 2 and 6 columns c + 8 and c + 9 of row r, nibbles 3 and 7
// of row r + 8. Those are the left operands of mma m16n8k16 and of wgmma m64k16.
//
// What a last panel or unit has beyond the matrix is zero.
#ifndef QUIVER_KERNELS_CUDA_INT4_MATRIX_H_
#define QUIVER_KERNELS_CUDA_INT4_MATRIX_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/fp8.h"
#include "kernels/cuda/half_type.h"

namespace quiver {

inline constexpr int kInt4PanelRows = 64;
inline constexpr int kInt4UnitColumns = 128;
inline constexpr int kInt4NibbleBytes = kInt4PanelRows * kInt4UnitColumns / 2;
inline constexpr int kInt4GroupBytes = kInt4PanelRows * 4;

struct Int4Matrix {
  const void* data = nullptr;  // Int4Bytes(), aligned to 16 bytes
  int64_t n = 0;
  int64_t k = 0;
  // Columns of a group: 32, 64 or 128. One scale for a whole row is 128 with equal scales.
  int group = 128;
  HalfType type = HalfType::kBf16;  // of scales, offsets and dequantized elements
};

constexpr bool IsInt4Group(int64_t group) { return group == 32 || group == 64 || group == 128; }
constexpr int64_t Int4UnitBytes(int group) {
  return kInt4NibbleBytes + kInt4UnitColumns / group * kInt4GroupBytes;
}
constexpr int64_t Int4Panels(int64_t n) { return (n + kInt4PanelRows - 1) / kInt4PanelRows; }
constexpr int64_t Int4Units(int64_t k) { return (k + kInt4UnitColumns - 1) / kInt4UnitColumns; }
constexpr int64_t Int4Bytes(int64_t n, int64_t k, int group) {
  return Int4Panels(n) * Int4Units(k) * Int4UnitBytes(group);
}

// A quantized matrix as checkpoints have it, on the device: an element is
// (values - zeros) * scales, where k goes left to right in groups.
struct Int4Source {
  const uint8_t* values = nullptr;  // [n, k / 2], the even column in a byte's low half; k is even
  const uint8_t* zeros = nullptr;   // [n, groups], 0 to 16
  const float* scales = nullptr;    // [n, groups], rounded to the matrix's type
  int64_t groups = 0;               // of a row: ceil(k / group), or 1 for whole rows
};

// Writes `matrix`, all of its bytes. cudaErrorInvalidValue for what is outside of the contract.
cudaError_t PackInt4(const Int4Source& source, const Int4Matrix& matrix, cudaStream_t stream);

// The same, with random values that are about uniform in [-range, range), functions of the seed.
cudaError_t RandomInt4(float range, uint64_t seed, const Int4Matrix& matrix, cudaStream_t stream);

// out [rows, k], dense and aligned to 16 bytes, of the matrix's type: its rows from `first_row` on,
// a multiple of kInt4PanelRows. An element is nibble - zero, which is exact, times the scale,
// rounded once; k is a multiple of 8. The next kernel in the stream may read `out` without waiting.
cudaError_t ExpandInt4(const Int4Matrix& matrix, int64_t first_row, int64_t rows, void* out,
                       cudaStream_t stream);

// scales[n]: those with which ExpandInt4ToFp8() has codes for all that a row's groups can hold.
cudaError_t Int4RowScales(const Int4Matrix& matrix, float* scales, cudaStream_t stream);

// As ExpandInt4(), in FP8: the closest to an element are code * scale, with Int4RowScales() of the
// same rows in out.scales, which are read. k is a multiple of 16.
cudaError_t ExpandInt4ToFp8(const Int4Matrix& matrix, int64_t first_row, int64_t rows,
                            const Fp8Rows& out, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_INT4_MATRIX_H_
