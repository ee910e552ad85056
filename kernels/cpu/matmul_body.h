// MatmulKernel for an instruction set.
//
// A tile of kTileRows x kTilePanels vectors is summed in registers over a whole block of k, so that
// the loop does nothing but multiply: on AVX2 6 rows x 16 columns, 12 chains, against a latency of
// 4 at 2 a cycle. One panel's block of weights (24 KiB) stays in the first-level cache while all
// rows pass by. Rows that are left over take as many panels at once as registers allow, so that a
// single row too has chains enough.
#ifndef QUIVER_KERNELS_CPU_MATMUL_BODY_H_
#define QUIVER_KERNELS_CPU_MATMUL_BODY_H_

#include <bit>
#include <cstdint>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/matmul_kernel.h"
#include "kernels/cpu/simd_math.h"
#include "kernels/cpu/simd_tile.h"

namespace quiver::cpu {

static_assert(kPanelWidth == kLanes);

template <typename Set>
struct MatmulBody {
  using Vec = typename Set::Vec;

  // Rows [row, row + kRows) times panels [panel, panel + kPanels).
  template <typename T, int kRows, int kPanels>
  static void Tile(const PanelProduct& product, int64_t row, int panel) {
    const TileRows rows = {product.x + row * product.x_stride, product.x_stride, 1};
    const TilePanels<T> panels = {
        static_cast<const T*>(product.panels) + panel * product.panel_stride, product.panel_stride,
        kPanelWidth};
    Vec sums[kRows][kPanels];
    ClearTile(sums);
    AccumulateTile(rows, panels, product.count, sums);
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) {
      float* out = product.sums + (panel + p) * product.sums_stride + row * kPanelWidth;
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r, out += kPanelWidth) {
        (product.first ? sums[r][p] : Vec::Load(out) + sums[r][p]).Store(out);
      }
    }
  }

  // The last `rows` < kRows rows, from `row` on, times all panels.
  template <typename T, int kRows>
  static void Rest(const PanelProduct& product, int64_t row, int64_t rows) {
    if constexpr (kRows > 1) {
      if (rows < kRows) return Rest<T, kRows - 1>(product, row, rows);
    }
    constexpr int kSums = Set::kTileRows * Set::kTilePanels;
    constexpr int kPanels = 4 * kRows <= kSums ? 4 : 2 * kRows <= kSums ? 2 : 1;
    int panel = 0;
    for (; panel + kPanels <= product.num_panels; panel += kPanels) {
      Tile<T, kRows, kPanels>(product, row, panel);
    }
    for (; panel < product.num_panels; ++panel) Tile<T, kRows, 1>(product, row, panel);
  }

  template <typename T>
  static void MultiplyAs(const PanelProduct& product) {
    constexpr int kRows = Set::kTileRows;
    constexpr int kPanels = Set::kTilePanels;
    const int64_t whole = product.rows / kRows * kRows;
    int panel = 0;
    for (; panel + kPanels <= product.num_panels; panel += kPanels) {
      for (int64_t row = 0; row < whole; row += kRows) Tile<T, kRows, kPanels>(product, row, panel);
    }
    for (; panel < product.num_panels; ++panel) {
      for (int64_t row = 0; row < whole; row += kRows) Tile<T, kRows, 1>(product, row, panel);
    }
    if constexpr (kRows > 1) {
      if (whole < product.rows) Rest<T, kRows - 1>(product, whole, product.rows - whole);
    }
  }

  static void Multiply(const PanelProduct& product) {
    switch (product.type) {
      case StoredType::kF32:
        return MultiplyAs<float>(product);
      case StoredType::kF16:
        return MultiplyAs<F16>(product);
      case StoredType::kBF16:
        return MultiplyAs<BF16>(product);
    }
  }

  // Plain loops over kPanelWidth, which compilers make vectors of. Each element is rounded once, by
  // its product with the scale, whatever the instruction set.
  static void Expand(const CodedBlock& block, float* out) {
    constexpr int64_t kHalf = kPanelWidth / 2;
    for (int64_t i = 0; i < block.count; ++i, out += kPanelWidth) {
      const float* scales = block.scales + block.input_groups[i] * kPanelWidth;
      if (block.coding == Coding::kInt4) {
        const float* zeros = block.zero_points + block.input_groups[i] * kPanelWidth;
        const uint8_t* codes = block.codes + i * kHalf;
        for (int64_t c = 0; c < kHalf; ++c) {
          out[c] = (static_cast<float>(codes[c] & 0xf) - zeros[c]) * scales[c];
        }
        for (int64_t c = 0; c < kHalf; ++c) {
          out[c + kHalf] =
              (static_cast<float>(codes[c] >> 4) - zeros[c + kHalf]) * scales[c + kHalf];
        }
        continue;
      }
      const uint8_t* codes = block.codes + i * kPanelWidth;
      for (int64_t c = 0; c < kPanelWidth; ++c) {
        // Exponent and fraction where a float has them; 2^120 makes up for the biases, 127 and 7.
        const uint32_t bits = static_cast<uint32_t>(codes[c] & 0x80) << 24 |
                              static_cast<uint32_t>(codes[c] & 0x7f) << 20;
        out[c] = std::bit_cast<float>(bits) * 0x1p120f * scales[c];
      }
    }
  }

  static void Finish(const PanelResult& result) {
    const bool whole = result.cols == kLanes;
    const auto load = [&](const float* p) {
      return whole ? Vec::Load(p) : Vec::LoadPartial(p, result.cols);
    };
    const Vec bias = result.bias == nullptr ? Vec::Set1(0.0f) : load(result.bias);
    WithActivation(result.activation, [&]<Activation kActivation> {
      for (int64_t r = 0; r < result.rows; ++r) {
        Vec value = Activated<kActivation>(Vec::Load(result.sums + r * kPanelWidth) + bias);
        if (result.residual != nullptr) {
          value = value + load(result.residual + r * result.residual_stride);
        }
        Put(value, result, r);
      }
    });
  }

  static void FinishGated(const PanelResult& result, const float* up_sums) {
    WithActivation(result.activation, [&]<Activation kActivation> {
      for (int64_t r = 0; r < result.rows; ++r) {
        const Vec gate = Activated<kActivation>(Vec::Load(result.sums + r * kPanelWidth));
        Put(gate * Vec::Load(up_sums + r * kPanelWidth), result, r);
      }
    });
  }

  static QUIVER_INLINE void Put(Vec value, const PanelResult& result, int64_t row) {
    float* y = result.y + row * result.y_stride;
    if (result.cols == kLanes) {
      value.Store(y);
    } else {
      value.StorePartial(y, result.cols);
    }
  }

  static constexpr MatmulKernel kKernel = {Expand, Multiply, Finish, FinishGated};
};

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_MATMUL_BODY_H_
