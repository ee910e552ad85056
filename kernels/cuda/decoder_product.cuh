// Products of DecoderPass()'s kernel, and what the last block at a tile's sums makes of them.
//
// Work mapping: a product is a row of units, 64 columns of one tile of W each, tile by tile, of
// which every block takes an equal share. Two warpgroups multiply, each with W as the left operand
// in 64 rows of the tile, from shared memory or made in registers, and x^T the right one, and add
// their sums of each tile to those of other blocks in the cache.
#ifndef QUIVER_KERNELS_CUDA_DECODER_PRODUCT_CUH_
#define QUIVER_KERNELS_CUDA_DECODER_PRODUCT_CUH_

#include <cstdint>

#include "kernels/cuda/decoder_device.cuh"
#include "kernels/cuda/decoder_weights.cuh"
#include "kernels/cuda/hopper_narrow.cuh"

namespace quiver::decoder {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// One way round for each product, so that shares that are longer by one go to different blocks.
__device__ __forceinline__ Units UnitsOf(const Product& product, int name) {
  const int blocks = static_cast<int>(gridDim.x);
  const int share = (static_cast<int>(blockIdx.x) + name * blocks / kProducts) % blocks;
  const int units = product.tiles * product.chunks;
  return {units * share / blocks, units * (share + 1) / blocks};
}

// A place in a ring of stages, and the parity of its turn.
template <int kStages>
struct RingPlace {
  __device__ __forceinline__ void Advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  int stage = 0;
  uint32_t parity = 0;
};

// The block's shared memory by addresses.
template <typename Weight>
struct Rings {
  using L = Layout<Weight>;
  __device__ uint32_t weight(int stage) const { return shared + stage * L::kWeightBytes; }
  __device__ uint32_t x(int stage) const { return shared + L::kXOffset + stage * kXBytes; }
  __device__ uint32_t weight_full(int stage) const {
    return shared + L::kBarrierOffset + stage * 8;
  }
  __device__ uint32_t weight_empty(int stage) const {
    return weight_full(stage) + L::kWeightStages * 8;
  }
  __device__ uint32_t x_full(int stage) const {
    return weight_full(stage) + 2 * L::kWeightStages * 8;
  }
  __device__ uint32_t x_empty(int stage) const { return x_full(stage) + kXStages * 8; }

  uint32_t shared;
};

__device__ __forceinline__ void AddFour(float* to, float a, float b, float c, float d) {
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(a),
               "f"(b), "f"(c), "f"(d)
               : "memory");
}

// A warpgroup's sums as wgmma leaves them, to `sums` [64, tokens].
__device__ __forceinline__ void AddSums(const float (&acc)[kTokens / 2], float* sums) {
  const int lane = threadIdx.x % 32;
  const bool is_odd = lane % 2 == 1;
  const int row = threadIdx.x / 32 % 4 * 16 + lane / 4;
  // Neighbouring lanes have two tokens each of eight; of two such eights each takes four tokens of
  // one.
  float* to = sums + row * kTokens + (is_odd ? 8 : 0) + lane % 4 / 2 * 4;
#pragma unroll
  for (int eights = 0; eights < kTokens / 8; eights += 2) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int even = eights * 4 + half * 2;
      const int odd = even + 4;
      const float x = __shfl_xor_sync(~0u, is_odd ? acc[even] : acc[odd], 1);
      const float y = __shfl_xor_sync(~0u, is_odd ? acc[even + 1] : acc[odd + 1], 1);
      float* at = to + half * 8 * kTokens + eights * 8;
      if (is_odd) {
        AddFour(at, x, y, acc[odd], acc[odd + 1]);
      } else {
        AddFour(at, acc[even], acc[even + 1], x, y);
      }
    }
  }
}

// The computing threads' side of a pass's products.
template <typename T, typename Weight>
class Multiplier {
  using L = Layout<Weight>;
  static constexpr int kSteps = kChunk / 16;

 public:
  __device__ Multiplier(const Params& params, unsigned char* memory)
      : p_(params),
        memory_(memory),
        rings_{SharedAddress(memory)},
        partial_(reinterpret_cast<float*>(memory + L::kPartialOffset)),
        flag_(reinterpret_cast<int*>(memory + L::kFlagOffset)) {}

  // The block's share of a layer's product, added up; if the product has a `finish`, `finish(tile)`
  // of every tile of which no other block has a share to come.
  template <typename Finish>
  __device__ __forceinline__ void Run(const Product& product, int layer, const Units& units,
                                      bool has_finish, Finish&& finish) {
    const int group = threadIdx.x / 128;
    for (int begin = units.begin; begin < units.end;) {
      const int tile = begin / product.chunks;
      const int end = min(units.end, (tile + 1) * product.chunks);
      const int first_row = tile * product.tile_step + group * product.group_step;
      float acc[kTokens / 2] = {};
      if constexpr (Weight::kIsOperand) {
        MultiplyTile(end - begin, group, acc);
      } else {
        MultiplyMadeTile(end - begin, group, acc);
      }
      if constexpr (Weight::kHasRowScales) {
        Scale(OfLayer(p_, product.scales, layer) + first_row, acc);
      }
      AddSums(acc, product.sums + first_row * kTokens);
      if (has_finish && IsWhole(product, tile, end - begin)) finish(tile);
      begin = end;
    }
  }

  // A tile of the residual is whole but for its norm's factor.
  __device__ __forceinline__ void NormTile(int tile, int norm, const float* weight) {
    const int warp = threadIdx.x / 32;
    const int token = threadIdx.x % 32;
    const int feature = (tile * kComputeWarps + warp) * 16;
    const float factor = OperandFactor<T>(p_, norm, token);
    const float* residual = p_.residual + feature * kTokens + token;
    float value[16];
    float square = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) value[i] = __ldcg(residual + i * kTokens);
#pragma unroll
    for (int i = 0; i < 16; ++i) square = fmaf(value[i], value[i], square);
    partial_[warp * kTokens + token] = square;
    T* out = static_cast<T*>(p_.normed) + token * p_.hidden + feature;
#pragma unroll
    for (int i = 0; i < 16; i += 8) {
      float normed[8];
#pragma unroll
      for (int j = 0; j < 8; ++j)
        normed[j] = value[i + j] * factor * __ldg(weight + feature + i + j);
      Store8(out + i, normed);
    }
    ComputeSync();
    if (warp == 0) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kComputeWarps; ++i) sum += partial_[i * kTokens + token];
      atomicAdd(p_.squares + norm * kTokens + token, sum);
    }
  }

  // A tile of gates and what they let through is whole.
  __device__ __forceinline__ void ActivateTile(int tile, int norm) {
    const Product& product = p_.products[kGateUp];
    const int token = threadIdx.x % 32;
    const int feature = tile * kBoxRows + threadIdx.x / 32 * 8;
    const float factor = SumsFactor<T>(p_, norm, token);
    float* gates = product.sums + feature * kTokens + token;
    float* ups = gates + product.group_step * kTokens;
    float gate[8];
    float up[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      gate[i] = __ldcg(gates + i * kTokens);
      up[i] = __ldcg(ups + i * kTokens);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float x = gate[i] * factor;
      gate[i] = x / (1 + __expf(-x)) * (up[i] * factor);
      __stcg(gates + i * kTokens, 0.0f);
      __stcg(ups + i * kTokens, 0.0f);
    }
    Store8(static_cast<T*>(p_.activated) + token * product.group_step + feature, gate);
  }

 private:
  __device__ __forceinline__ void MultiplyTile(int count, int group, float (&acc)[kTokens / 2]) {
    const bool releases = threadIdx.x % 32 == 0;
    int weight_before = 0;
    int x_before = 0;
    for (int i = 0; i < count; ++i) {
      const uint64_t weight =
          TileDescriptor(rings_.weight(weight_.stage) + group * Weight::kBoxBytes, 0);
      const uint64_t x = TileDescriptor(rings_.x(x_.stage), 0);
      AwaitX();
      BarrierWait(rings_.weight_full(weight_.stage), weight_.parity);
      MmaFence();
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        // 16 columns are 32 bytes of a row.
        MmaSharedNarrow<T>(acc, weight + (step * 32 >> 4), x + (step * 32 >> 4));
      }
      MmaCommit();
      // The unit before has been read.
      MmaWait<1>();
      if (releases && i > 0) Release(weight_before, x_before);
      weight_before = weight_.stage;
      x_before = x_.stage;
      weight_.Advance();
      x_.Advance();
    }
    MmaWait<0>();
    if (releases) Release(weight_before, x_before);
    PinRegisters(acc);
  }

  // As MultiplyTile(), of boxes that are made into operands in registers: of half of a unit's steps
  // while the products of the half before are under way.
  __device__ __forceinline__ void MultiplyMadeTile(int count, int group,
                                                   float (&acc)[kTokens / 2]) {
    constexpr int kHalf = kSteps / 2;
    const bool releases = threadIdx.x % 32 == 0;
    const int thread = threadIdx.x % 128;
    int x_before = 0;
    uint32_t operands[2][kHalf][4];
    for (int i = 0; i < count; ++i) {
      BarrierWait(rings_.weight_full(weight_.stage), weight_.parity);
      typename Weight::template Operands<T> box(
          memory_ + weight_.stage * L::kWeightBytes + group * Weight::kBoxBytes, thread);
      AwaitX();
      const uint64_t x = TileDescriptor(rings_.x(x_.stage), 0);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int s = 0; s < kHalf; ++s) box.Make(half * kHalf + s, operands[half][s]);
        MmaFence();
#pragma unroll
        for (int s = 0; s < kHalf; ++s) {
          MmaRegistersNarrow<T>(acc, operands[half][s], x + ((half * kHalf + s) * 32 >> 4));
        }
        MmaCommit();
        MmaWait<1>();
        // The unit before has been read.
        if (half == 0 && releases && i > 0) BarrierArrive(rings_.x_empty(x_before));
      }
      if (releases) BarrierArrive(rings_.weight_empty(weight_.stage));
      x_before = x_.stage;
      weight_.Advance();
      x_.Advance();
    }
    MmaWait<0>();
    if (releases) BarrierArrive(rings_.x_empty(x_before));
    PinRegisters(acc);
  }

  // By the scales of the warpgroup's 64 rows.
  __device__ __forceinline__ void Scale(const float* scales, float (&acc)[kTokens / 2]) const {
    const int row = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
    const float low = __ldg(scales + row);
    const float high = __ldg(scales + row + 8);
#pragma unroll
    for (int i = 0; i < kTokens / 2; ++i) acc[i] *= i / 2 % 2 == 0 ? low : high;
  }

  // Ordinary copies brought it; products read it as the copy engine's.
  __device__ __forceinline__ void AwaitX() const {
    BarrierWait(rings_.x_full(x_.stage), x_.parity);
    FenceAsyncProxy();
  }

  __device__ __forceinline__ void Release(int weight_stage, int x_stage) const {
    BarrierArrive(rings_.weight_empty(weight_stage));
    BarrierArrive(rings_.x_empty(x_stage));
  }

  // Whether `chunks` more of a tile make it whole.
  __device__ __forceinline__ bool IsWhole(const Product& product, int tile, int chunks) {
    ComputeSync();
    if (threadIdx.x == 0) {
      int32_t* counter = product.counters + tile;
      int before;
      asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], %2;"
                   : "=r"(before)
                   : "l"(counter), "r"(chunks)
                   : "memory");
      const bool is_whole = before + chunks == product.chunks;
      if (is_whole) *counter = 0;
      *flag_ = is_whole;
    }
    ComputeSync();
    return *flag_ != 0;
  }

  const Params& p_;
  const unsigned char* const memory_;
  const Rings<Weight> rings_;
  float* const partial_;
  int* const flag_;
  RingPlace<L::kWeightStages> weight_;
  RingPlace<kXStages> x_;
};

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace quiver::decoder

#endif  // QUIVER_KERNELS_CUDA_DECODER_PRODUCT_CUH_
