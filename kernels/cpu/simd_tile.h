// The inner loop of every product here: a tile of sums kept in registers.
#ifndef QUIVER_KERNELS_CPU_SIMD_TILE_H_
#define QUIVER_KERNELS_CPU_SIMD_TILE_H_

#include <cstdint>

#include "kernels/cpu/simd.h"

namespace quiver::cpu {

// An operand that is read one element at a time: element i of row r is at
// data + r * row_stride + i * step.
struct TileRows {
  const float* data;
  int64_t row_stride;
  int64_t step;
};

// An operand that is read a vector at a time: vector i of panel p is at data + p * panel_stride +
// i * step.
template <typename T>
struct TilePanels {
  const T* data;
  int64_t panel_stride;
  int64_t step;
};

template <typename Vec, int kRows, int kPanels>
QUIVER_INLINE void ClearTile(Vec (&sums)[kRows][kPanels]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) sums[r][p] = Vec::Set1(0.0f);
  }
}

// sums[r][p] += the sum over i < count of rows[r][i] * panels[p][i], a chain of Fma in ascending i.
template <typename Vec, int kRows, int kPanels, typename T>
QUIVER_INLINE void AccumulateTile(const TileRows& rows, const TilePanels<T>& panels, int64_t count,
                                  Vec (&sums)[kRows][kPanels]) {
  const float* x = rows.data;
  const T* w = panels.data;
#pragma GCC unroll 4
  for (int64_t i = 0; i < count; ++i) {
    Vec weights[kPanels];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) weights[p] = Vec::Load(w + p * panels.panel_stride);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec value = Vec::Set1(x[r * rows.row_stride]);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) sums[r][p] = Vec::Fma(value, weights[p], sums[r][p]);
    }
    x += rows.step;
    w += panels.step;
  }
}

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_SIMD_TILE_H_
