// What becomes of a tile's sums: from registers through shared memory to y. For
// hopper_matmul_kernel.cuh.
#ifndef QUIVER_KERNELS_CUDA_HOPPER_MATMUL_EPILOGUE_CUH_
#define QUIVER_KERNELS_CUDA_HOPPER_MATMUL_EPILOGUE_CUH_

#include <cuda_fp8.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/hopper_matmul_sm90.cuh"

namespace quiver::hopper_matmul {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

using namespace hopper;

// Two 8 x 8 matrices below each other, and the two on their right.
__device__ __forceinline__ void StoreMatrices(uint32_t to, uint32_t a, uint32_t b, uint32_t c,
                                              uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(a),
               "r"(b), "r"(c), "r"(d)
               : "memory");
}

__device__ __forceinline__ void StoreMatrices(uint32_t to, uint32_t a, uint32_t b) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(to), "r"(a), "r"(b)
               : "memory");
}

// Until the copy engine has read what the warp has given it, so that the place may be overwritten.
__device__ __forceinline__ void AwaitPlace() {
  if (threadIdx.x % 32 == 0) AwaitStoresRead();
  __syncwarp();
}

// A warp's 16 rows of a part of y, `values` as wgmma leaves sums, to `place` and on to y.
template <typename T, typename Shape>
__device__ __forceinline__ void WriteRows(const Params& p,
                                          const float (&values)[Shape::kPartColumns / 2],
                                          uint32_t place, int row, int column) {
  constexpr int kPieces = Shape::kPartColumns / 8;
  constexpr int kBoxPieces = Shape::kBoxColumns / 8;
  constexpr int kBoxRowBytes = Shape::kBoxColumns * 2;
  const int lane = threadIdx.x % 32;
  const int in = lane % 16;  // the row
  const int swizzle = Shape::kBoxColumns == 64 ? in % 8 : Shape::kBoxColumns == 32 ? in / 2 % 4 : 0;
  const uint32_t at = place + in * kBoxRowBytes;
  const int piece_of_lane = lane / 16 ^ swizzle;
  const auto address = [&](int piece) {
    return at + piece / kBoxPieces * kWarpRows * kBoxRowBytes +
           ((piece % kBoxPieces ^ piece_of_lane) * 16);
  };
  const auto pair = [&](int piece, int half) {
    return Narrow<T>(values[piece * 4 + half * 2], values[piece * 4 + half * 2 + 1]);
  };
#pragma unroll
  for (int piece = 0; piece + 1 < kPieces; piece += 2) {
    StoreMatrices(address(piece), pair(piece, 0), pair(piece, 1), pair(piece + 1, 0),
                  pair(piece + 1, 1));
  }
  if constexpr (kPieces % 2 != 0) {
    StoreMatrices(address(kPieces - 1), pair(kPieces - 1, 0), pair(kPieces - 1, 1));
  }
  FenceAsyncProxy();
  __syncwarp();
  if (lane == 0) {
    // What a box has beyond y is not written.
    for (int box = 0; box < kPieces / kBoxPieces && row < p.rows; ++box) {
      StoreBox2(&p.y_map, place + box * kWarpRows * kBoxRowBytes, column + box * Shape::kBoxColumns,
                row);
    }
    CommitStores();
  }
}

template <typename X>
inline constexpr bool kIsFp8 = std::is_same_v<X, __nv_fp8_e4m3>;

// Of the two rows of x that a thread has sums of, the first of the warp's rows being `row`.
template <typename X>
struct RowScales {
  __device__ __forceinline__ RowScales(const Params& p, int row) {
    if constexpr (kIsFp8<X>) {
      row += static_cast<int>(threadIdx.x) % 32 / 4;
      upper = row < p.rows ? p.x_scales[row] : 0;
      lower = row + 8 < p.rows ? p.x_scales[row + 8] : 0;
    }
  }
  float upper;
  float lower;
};

// Sums of codes become those of what they stand for.
template <int kColumns>
__device__ __forceinline__ void ScaleSums(const Params& p, const RowScales<__nv_fp8_e4m3>& rows,
                                          int column_tile, float (&acc)[kColumns / 2]) {
  constexpr int kHalfPieces = kColumns / 16;
  const int first = column_tile * p.tile_step + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int piece = 0; piece < kColumns / 8; ++piece) {
    const int column = first + piece / kHalfPieces * p.half_step + piece % kHalfPieces * 8;
    // What a tile has beyond W is zero.
    const float2 scale =
        __ldg(reinterpret_cast<const float2*>(p.weight_scales + min(column, p.out_features - 2)));
    acc[4 * piece] *= rows.upper * scale.x;
    acc[4 * piece + 1] *= rows.upper * scale.y;
    acc[4 * piece + 2] *= rows.lower * scale.x;
    acc[4 * piece + 3] *= rows.lower * scale.y;
  }
}

// silu(gate) * up. A large negative gate's exponential is infinite, and its reciprocal 0.
__device__ __forceinline__ float SiluTimes(float gate, float up) {
  constexpr float kLog2E = 1.4426950408889634f;
  float exponential;
  float factor;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(exponential) : "f"(-kLog2E * gate));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(factor) : "f"(1.0f + exponential));
  return gate * factor * up;
}

// What an epilogue needs of memory, loaded before a tile's sums are made.
template <MatmulEpilogue kEpilogue>
struct Ahead {
  __device__ void Load(const Params&) {}
  __device__ void Next(const Params&, int) {}
};

// Of a warp's 16 rows 32 cosines and 32 sines each, as the warp loads them: those of the first or
// of the second half of a half head. `position`: in lanes 0 to 15 of the warp's rows.
__device__ __forceinline__ void LoadAngles(const float* table, int position, int half,
                                           float4 (&angles)[8]) {
  const int lane = threadIdx.x % 32;
  const int column = half * 32 + lane % 16 / 8 * (kHopperMatmulHeadDim / 2) + lane % 8 * 4;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int64_t at = __shfl_sync(~0u, position, i * 2 + lane / 16);
    const float* from = table + at * kHopperMatmulHeadDim + column;
    // Volatile, so that it stays before the products that hide how long it takes.
    asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(angles[i].x), "=f"(angles[i].y), "=f"(angles[i].z), "=f"(angles[i].w)
                 : "l"(from));
  }
}

template <>
struct Ahead<MatmulEpilogue::kQkNormRope> {
  // The angles of the rows whose positions are there.
  __device__ __forceinline__ void Load(const Params& p) {
    position = next_position;
    LoadAngles(p.rope.table, position, 0, angles);
  }
  // The positions of the warp's rows of the next tile, from `row` on.
  __device__ __forceinline__ void Next(const Params& p, int row) {
    const int at = row + static_cast<int>(threadIdx.x) % kWarpRows;
    next_position = at < p.rows ? p.rope.positions[at] : 0;
  }

  int position = 0;
  int next_position = 0;
  float4 angles[8];
};

// A warp's 16 rows of up to two heads, as wgmma leaves them. What follows the query and key heads
// is left as it is.
template <int kHeads>
__device__ __forceinline__ void NormAndRotate(const QkNormRopeOperands& rope, int first_head,
                                              Ahead<MatmulEpilogue::kQkNormRope>* ahead,
                                              unsigned char* staging, float (&acc)[kHeads * 64]) {
  const int normed_heads = rope.num_heads + rope.num_kv_heads;
  const int lane = threadIdx.x % 32;
  const int column = lane % 4 * 2;
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    if (first_head + h >= normed_heads) continue;
    const float* weight =
        (first_head + h < rope.num_heads ? rope.q_weight : rope.k_weight) + column;
    float factor[2];
#pragma unroll
    for (int below = 0; below < 2; ++below) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const float* pair = acc + h * 64 + i * 4 + below * 2;
        sum = fmaf(pair[0], pair[0], sum);
        sum = fmaf(pair[1], pair[1], sum);
      }
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      factor[below] = 1.0f / sqrtf(sum / kHopperMatmulHeadDim + rope.eps);
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float2 scale = __ldg(reinterpret_cast<const float2*>(weight + i * 8));
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        float* pair = acc + h * 64 + i * 4 + below * 2;
        pair[0] = pair[0] * factor[below] * scale.x;
        pair[1] = pair[1] * factor[below] * scale.y;
      }
    }
  }
  // A row of 32 cosines and 32 sines at a time through shared memory, in an order in which neither
  // side meets bank conflicts.
  float* const shared = reinterpret_cast<float*>(staging);
  const auto place = [&](int row, int word) { return row * 64 + (word ^ (row % 4 * 8)); };
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      *reinterpret_cast<float4*>(shared + place(i * 2 + lane / 16, lane % 16 * 4)) =
          ahead->angles[i];
    }
    __syncwarp();
    if (half == 0) LoadAngles(rope.table, ahead->position, 1, ahead->angles);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int below = 0; below < 2; ++below) {
        const int row = lane / 4 + below * 8;
        const float2 cosine = *reinterpret_cast<float2*>(shared + place(row, i * 8 + column));
        const float2 sine = *reinterpret_cast<float2*>(shared + place(row, 32 + i * 8 + column));
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
          if (first_head + h >= normed_heads) continue;
          float* low = acc + h * 64 + (half * 4 + i) * 4 + below * 2;
          float* high = low + 32;
          const float2 first = make_float2(low[0], low[1]);
          const float2 second = make_float2(high[0], high[1]);
          low[0] = first.x * cosine.x - second.x * sine.x;
          low[1] = first.y * cosine.y - second.y * sine.y;
          high[0] = second.x * cosine.x + first.x * sine.x;
          high[1] = second.y * cosine.y + first.y * sine.y;
        }
      }
    }
    __syncwarp();
  }
}

// A warp's part of the sums becomes its part of y. `staging`: the warp's places.
template <typename T, MatmulEpilogue kEpilogue, int kColumns, typename Shape>
__device__ __forceinline__ void FinishTile(const Params& p, int row, int column_tile,
                                           Ahead<kEpilogue>* ahead, unsigned char* staging,
                                           float (&acc)[kColumns / 2]) {
  AwaitPlace();
  if constexpr (kEpilogue == MatmulEpilogue::kQkNormRope) {
    static_assert(Shape::kPartColumns == kHopperMatmulHeadDim);
    const int head = column_tile * Shape::kParts;
    if (head < p.rope.num_heads + p.rope.num_kv_heads) {
      NormAndRotate<Shape::kParts>(p.rope, head, ahead, staging, acc);
    }
  }
#pragma unroll
  for (int part = 0; part < Shape::kParts; ++part) {
    constexpr int kCount = Shape::kPartColumns / 2;
    float values[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      values[i] = acc[part * kCount + i];
      if constexpr (kEpilogue == MatmulEpilogue::kSwiGlu) {
        values[i] = SiluTimes(values[i], acc[Shape::kYColumns / 2 + part * kCount + i]);
      }
    }
    if (part >= Shape::kPlaces) AwaitPlace();
    WriteRows<T, Shape>(p, values,
                        SharedAddress(staging) + part % Shape::kPlaces * Shape::kPartBytes, row,
                        column_tile * Shape::kYColumns + part * Shape::kPartColumns);
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace quiver::hopper_matmul

#endif  // QUIVER_KERNELS_CUDA_HOPPER_MATMUL_EPILOGUE_CUH_
