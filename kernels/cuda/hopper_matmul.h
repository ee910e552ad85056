// y = x W^T for any number of rows on Hopper, of 16-bit operands or of FP8 ones with scales for
// rows, and what follows the product computed on its sums while they are in registers.
//
// Deterministic: with one tile, a row's result depends on that row and W alone, bit for bit,
// whatever `rows` is.
#ifndef QUIVER_KERNELS_CUDA_HOPPER_MATMUL_H_
#define QUIVER_KERNELS_CUDA_HOPPER_MATMUL_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/half_type.h"

namespace quiver {

// What is made of the sums of a row, in F32, before they are rounded once.
enum class MatmulEpilogue : uint8_t {
  kNone,
  // y = silu(gate) * up, where a row of sums is [gate: n / 2 | up: n / 2]; y has n / 2 columns.
  kSwiGlu,
  // As QkNormRope() does it with heads of 128, on sums [query heads | key heads | ...].
  kQkNormRope,
};

inline constexpr int kHopperMatmulHeadDim = 128;

// For MatmulEpilogue::kQkNormRope; QkNormRope()'s of the same names.
struct QkNormRopeOperands {
  int num_heads = 0;
  int num_kv_heads = 0;
  const float* q_weight = nullptr;  // null if there are no such heads
  const float* k_weight = nullptr;
  float eps = 0;
  const int32_t* positions = nullptr;  // [rows]
  const float* table = nullptr;
};

// Row-major device matrices of one type, aligned to 16 bytes. Strides are in elements from one row
// to the next; they, in_features and the columns of y are multiples of 8. With scales x and weight
// are of E4M3, in_features and x_stride multiples of 16 and out_features of 2; sums stay in the
// tensor cores, which keep about 14 bits of them.
struct HopperMatmulTensors {
  const void* x = nullptr;  // [rows, in_features]
  int64_t x_stride = 0;
  // [out_features, in_features], dense. May be read while the kernel before this one in the stream
  // still runs, so that kernel and those that overlap with it must not write it.
  const void* weight = nullptr;
  const float* x_scales = nullptr;       // [rows]
  const float* weight_scales = nullptr;  // [out_features], aligned to 8 bytes
  void* y = nullptr;                     // not overlapping x
  int64_t y_stride = 0;
  int64_t rows = 0;
  int64_t out_features = 0;
  int64_t in_features = 0;
  HalfType type = HalfType::kBf16;  // of y, and of x and weight without scales
  MatmulEpilogue epilogue = MatmulEpilogue::kNone;
  QkNormRopeOperands rope = {};
};

// How the sums are dealt out: 128 rows by `columns` a block. Blocks of a pair share the weights of
// their tiles, which lie one below the other.
struct HopperMatmulTile {
  int columns = 0;
  int cluster_blocks = 1;  // 1 or 2

  friend bool operator==(const HopperMatmulTile&, const HopperMatmulTile&) = default;
};

// Those that there are for an epilogue.
std::span<const HopperMatmulTile> HopperMatmulTiles(MatmulEpilogue epilogue);

// The few of them that are likely to be the fastest, by how evenly they go round the
// multiprocessors, the likeliest first. Host arithmetic alone.
std::vector<HopperMatmulTile> LikelyHopperMatmulTiles(MatmulEpilogue epilogue, int64_t rows,
                                                      int64_t out_features, int multiprocessors);

// Whether the current device runs HopperMatmul().
cudaError_t HopperMatmulIsSupported(bool* is_supported);

// cudaErrorInvalidValue for what is outside of the contract, cudaErrorNotSupported if the tensors
// cannot be described to the copy engine.
cudaError_t HopperMatmul(const HopperMatmulTensors& tensors, const HopperMatmulTile& tile,
                         cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_HOPPER_MATMUL_H_
