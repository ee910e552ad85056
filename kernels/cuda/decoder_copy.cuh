// The copying warps of DecoderPass()'s kernel.
#ifndef QUIVER_KERNELS_CUDA_DECODER_COPY_CUH_
#define QUIVER_KERNELS_CUDA_DECODER_COPY_CUH_

#include <cstdint>

#include "kernels/cuda/decoder_device.cuh"
#include "kernels/cuda/decoder_product.cuh"

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
  __device__ const CUtensorMap* map() const { return &p.weight_maps[name]; }
  __device__ int column() const { return chunk * kChunk; }
  __device__ int row(int group) const {
    return tile * product().tile_step + group * product().group_step;
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
__device__ __forceinline__ void CopyWeights(const Params& p, const Rings& rings,
                                            const Units* units) {
  const uint64_t policy = EvictFirstPolicy();
  UnitWalk walk(p, units);
  RingPlace<kWeightStages> place;
  RingPlace<kWeightStages> oldest;  // of those under way
  int under_way = 0;
  while (!walk.is_done()) {
    if (under_way == kUnitsUnderWay) {
      BarrierWait(rings.weight_full(oldest.stage), oldest.parity);
      oldest.Advance();
      --under_way;
    }
    BarrierWait(rings.weight_empty(place.stage), place.parity ^ 1);
    const uint32_t full = rings.weight_full(place.stage);
    const uint32_t to = rings.weight(place.stage);
    BarrierArriveExpect(full, kWeightBytes);
    for (int group = 0; group < 2; ++group) {
      CopyBox3(to + group * kBoxBytes, walk.map(), walk.column(), walk.row(group), walk.layer, full,
               policy);
    }
    place.Advance();
    walk.Advance();
    ++under_way;
  }
}

// Warp `warp` of those that copy x: by ordinary copies, which do not wait behind those of weights.
__device__ __forceinline__ void CopyX(const Params& p, const Rings& rings, const Units* units,
                                      int warp) {
  constexpr int kBatch = kXStages / kXWarps;
  const int lane = threadIdx.x % 32;
  int first = 0;  // unit of the pass
  for (int number = 0; number < p.num_layers * kProducts; ++number) {
    const int name = number % kProducts;
    const Product& product = p.products[name];
    const int count = units[name].end - units[name].begin;
    // Who has nothing to copy must not ask for the barrier: nobody waits for it to have seen it,
    // and the pass may end before.
    if (lane == 0 && warp * kBatch < count) AwaitGrid(p, BarrierBefore(number / kProducts, name));
    __syncwarp();
    const int first_chunk = units[name].begin % product.chunks;
    const int64_t row_bytes = int64_t{product.chunks} * kRowBytes;
    const char* const from =
        static_cast<const char*>(product.x) + lane / 8 * row_bytes + lane % 8 * 16;
    for (int begin = warp * kBatch; begin < count; begin += kXStages) {
      const int end = min(count, begin + kBatch);
      for (int i = begin; i < end; ++i) {
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
      }
      asm volatile("cp.async.wait_all;" ::: "memory");
      FenceAsyncProxy();
      __syncwarp();
      if (lane == 0) {
        for (int i = begin; i < end; ++i) BarrierArrive(rings.x_full((first + i) % kXStages));
      }
    }
    first += count;
  }
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace quiver::decoder

#endif  // QUIVER_KERNELS_CUDA_DECODER_COPY_CUH_
