// What the phases of DecoderPass()'s kernel share. For decoder_pass_sm90.cu alone.
//
// Per-token values lie feature by feature, kMaxDecoderRows tokens each: [features, tokens] F32.
#ifndef QUIVER_KERNELS_CUDA_DECODER_DEVICE_CUH_
#define QUIVER_KERNELS_CUDA_DECODER_DEVICE_CUH_

#include <cuda.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/decoder_pass.h"
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/hopper.cuh"

namespace quiver::decoder {

constexpr int kTokens = kMaxDecoderRows;
constexpr int kHeadDim = kDecoderHeadDim;
constexpr int kHalfHead = kHeadDim / 2;
constexpr int kComputeWarps = 8;
constexpr int kComputeThreads = 32 * kComputeWarps;
constexpr int kXWarps = 2;
// And a warp that copies weights, and those that copy x.
constexpr int kThreads = kComputeThreads + 32 + 32 * kXWarps;

constexpr int kChunk = 64;  // columns of a unit; of x, of 128 bytes: what the swizzle spans
constexpr int kRowBytes = kChunk * 2;
constexpr int kBoxRows = 64;  // of W, for each of the two warpgroups
constexpr int kXBytes = kTokens * kChunk * 2;
constexpr int kXStages = 8;
// The ring of weights, and of it what a block has on its way at once. As much as keeps the memory
// busy: more stands in the way of all else that goes through the cache.
constexpr int kRingBytes = 192 * 1024;
constexpr int kBytesUnderWay = 32 * 1024;

enum ProductName { kQkv, kOutput, kGateUp, kDown, kProducts };

// A block's share of a product: units [begin, end).
struct Units {
  int begin;
  int end;
};

// The ring's stages and the block's shared memory, of units of W's policy (decoder_weights.cuh).
template <typename Weight>
struct Layout {
  static constexpr int kWeightBytes = 2 * Weight::kBoxBytes;
  // Whole kilobytes, as x's swizzle needs them after the ring.
  static constexpr int Stages() {
    int stages = kRingBytes / kWeightBytes;
    while (stages * kWeightBytes % 1024 != 0) --stages;
    return stages;
  }
  static constexpr int kWeightStages = Stages();
  static constexpr int kUnitsUnderWay = kBytesUnderWay / kWeightBytes;

  static constexpr int kXOffset = kWeightStages * kWeightBytes;
  static constexpr int kBarrierOffset = kXOffset + kXStages * kXBytes;
  static constexpr int kPartialOffset = kBarrierOffset + 2 * (kWeightStages + kXStages) * 8;
  static constexpr int kFlagOffset = kPartialOffset + kComputeWarps * kTokens * 4;
  static constexpr int kUnitsOffset = kFlagOffset + 16;
  static constexpr int kSharedBytes = kUnitsOffset + kProducts * static_cast<int>(sizeof(Units));
  static_assert(kSharedBytes <= 227 * 1024);
};

// W in tiles of two boxes of rows, x, and where the sums go.
struct Product {
  int tiles;
  int chunks;  // of a row of W
  // Of tile t, warpgroup g takes rows t * tile_step + g * group_step and up.
  int tile_step;
  int group_step;
  // Of the first layer: W where no map describes it, and its rows' scales.
  const unsigned char* weight;
  const float* scales;
  const void* x;      // [tokens, chunks * kChunk] of the type
  float* sums;        // [rows of W, tokens]
  int32_t* counters;  // of each tile's chunks that are summed up; zero between passes
};

struct Params {
  CUtensorMap weight_maps[kProducts];  // [layers, rows, columns]
  Product products[kProducts];

  int num_layers;
  int hidden;
  int num_heads;
  int num_kv_heads;
  float eps;
  int64_t layer_bytes;
  const float* input_norm;
  const float* query_norm;
  const float* key_norm;
  const float* mlp_norm;

  const float* in_residual;
  int rows;
  const int32_t* positions;
  const float* rope_table;
  const int32_t* pooled_rows;
  int num_pooled;
  float* out;

  float* residual;    // [hidden, tokens]
  float* squares;     // [2 * layers, tokens]: sums of a row's squares at each of the norms
  void* normed;       // [tokens, hidden] of the type, as are the two below
  void* attended;     // [tokens, query]
  void* activated;    // [tokens, inner]
  uint32_t* arrived;  // blocks at all of the grid's barriers, and blocks that are done with them
  uint32_t* left;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

using namespace hopper;

// Operands take it beside their norm's factor.
template <typename T>
constexpr float kOperandScale = std::is_same_v<T, __half> ? 0.0625f : 1.0f;

template <typename Value>
__device__ __forceinline__ const Value* OfLayer(const Params& p, const Value* first, int layer) {
  return reinterpret_cast<const Value*>(reinterpret_cast<const char*>(first) +
                                        layer * p.layer_bytes);
}

__device__ __forceinline__ void ComputeSync() { NamedBarrierSync(1, kComputeThreads); }

// ---- the grid's barriers ----

// Numbered from 0, after the residual is there; then five a layer, after its projection, attention
// and the three products behind it.
constexpr int kLayerBarriers = 5;
// The one that a product of a layer waits for, counted from the layer's first.
__device__ __forceinline__ int BarrierBefore(int layer, int product) {
  constexpr int kFirst[kProducts] = {0, 2, 3, 4};
  return layer * kLayerBarriers + kFirst[product];
}

__device__ __forceinline__ void AwaitGrid(const Params& p, int number) {
  const uint32_t blocks = gridDim.x * (number + 1);
  uint32_t arrived;
  do {
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(arrived) : "l"(p.arrived) : "memory");
  } while (arrived < blocks);
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

// With all that the computing threads have read and written.
__device__ __forceinline__ void ArriveAtGrid(const Params& p) {
  ComputeSync();
  if (threadIdx.x == 0) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(p.arrived) : "memory");
  }
}

__device__ __forceinline__ void ComputeAwaitGrid(const Params& p, int number) {
  if (threadIdx.x == 0) AwaitGrid(p, number);
  ComputeSync();
}

// ---- norms ----

__device__ __forceinline__ float NormFactor(const Params& p, int norm, int token) {
  const float square = __ldcg(p.squares + norm * kTokens + token);
  return rsqrtf(square / static_cast<float>(p.hidden) + p.eps);
}

// What the operand of norm `norm` has in place of its norm's factor, and what sums over it still
// lack.
template <typename T>
__device__ __forceinline__ float OperandFactor(const Params& p, int norm, int token) {
  return NormFactor(p, max(norm - 1, 0), token) * kOperandScale<T>;
}
template <typename T>
__device__ __forceinline__ float SumsFactor(const Params& p, int norm, int token) {
  return NormFactor(p, norm, token) / OperandFactor<T>(p, norm, token);
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace quiver::decoder

#endif  // QUIVER_KERNELS_CUDA_DECODER_DEVICE_CUH_
