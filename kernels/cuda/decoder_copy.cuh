// The copying warps of DecoderPass()'s kernel.
#ifndef QUIVER_KERNELS_CUDA_DECODER_COPY_CUH_
#define QUIVER_KERNELS_CUDA_DECODER_COPY_CUH_

#include <cstdint>

#include "kernels/cuda/decoder_device.cuh"
#include "kernels/cuda/decoder_product.cuh"
#include "kernels/cuda/decoder_weights.cuh"

namespace quiver::decoder {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// The block's units of all products, one after another.
struct UnitWalk {
  __device__ UnitWalk(const Params& params, const Units* shares) : p(params), units(shares) {
    Enter();
  }
  __device__ const Product& product() const { return p.products[name]; }
  __device__ bool is_done() const { return layer == p.num_layers; }
  __device__ void Advance() {
    if (++chunk == product().chunks) {
      chunk = 0;
      ++tile;
    }
    if (--left > 0) return;
    Next();
    Enter();
  }
  __device__ void Next() {
    if (++name == kProducts) {
      name = 0;
      ++layer;
    }
  }
  __device__ void Enter() {
    for (; !is_done(); Next()) {
      left = units[name].end - units[name].begin;
      if (left > 0) break;
    }
    tile = units[name % kProducts].begin / product().chunks;
    chunk = units[name].begin - tile * product().chunks;
  }
  __device__ Box box(int group) const {
    return {name, layer, tile * product().tile_step + group * product().group_step, chunk};
  }

  const Params& p;
  const Units* units;
  int layer = 0;
  int name = 0;
  int left = 0;
  int tile = 0;
  int chunk = 0;
};

// The thread that copies weights.
template <typename Weight>
__device__ __forceinline__ void CopyWeights(const Params& p, const Rings<Weight>& rings,
                                            const Units* units) {
  using L = Layout<Weight>;
  const uint64_t policy = EvictFirstPolicy();
  UnitWalk walk(p, units);
  RingPlace<L::kWeightStages> place;
  RingPlace<L::kWeightStages> oldest;  // of those under way
  int under_way = 0;
  while (!walk.is_done()) {
    if (under_way == L::kUnitsUnderWay) {
      BarrierWait(rings.weight_full(oldest.stage), oldest.parity);
      oldest.Advance();
      --under_way;
    }
    BarrierWait(rings.weight_empty(place.stage), place.parity ^ 1);
    const uint32_t full = rings.weight_full(place.stage);
    const uint32_t to = rings.weight(place.stage);
    BarrierArriveExpect(full, L::kWeightBytes);
    for (int group = 0; group < 2; ++group) {
      Weight::Copy(p, walk.box(group), to + group * Weight::kBoxBytes, full, policy);
    }
    place.Advance();
    walk.Advance();
    ++under_way;
  }
}

// Warp `warp` of those that copy x: by ordinary copies, which do not wait behind those of weights.
template <typename Weight>
__device__ __forceinline__ void CopyX(const Params& p, const Rings<Weight>& rings,
                                      const Units* units, int warp) {
  const int lane = threadIdx.x % 32;
  int first = 0;  // unit of the pass
  for (int number = 0; number < p.num_layers * kProducts; ++number) {
    const int name = number % kProducts;
    const Product& product = p.products[name];
    const int count = units[name].end - units[name].begin;
    // Who has nothing to copy must not ask for the barrier: nobody waits for it to have seen it,
    // and the pass may end before.
    if (lane == 0 && warp < count) AwaitGrid(p, BarrierBefore(number / kProducts, name));
    __syncwarp();
    const int first_chunk = units[name].begin % product.chunks;
    const int64_t row_bytes = int64_t{product.chunks} * kRowBytes;
    const char* const from =
        static_cast<const char*>(product.x) + lane / 8 * row_bytes + lane % 8 * 16;
    for (int i = warp; i < count; i += kXWarps) {
      const int unit = first + i;
      const int stage = unit % kXStages;
      BarrierWait(rings.x_empty(stage), (unit / kXStages & 1) ^ 1);
      const char* at = from + (first_chunk + i) % product.chunks * kRowBytes;
#pragma unroll
      for (int row = 0; row < kTokens; row += 4) {
        const int to = row + lane / 8;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                         rings.x(stage) + to * kRowBytes + ((lane ^ to) % 8 * 16)),
                     "l"(at + row * row_bytes)
                     : "memory");
      }
      asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(rings.x_full(stage))
                   : "memory");
    }
    first += count;
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace quiver::decoder

#endif  // QUIVER_KERNELS_CUDA_DECODER_COPY_CUH_
