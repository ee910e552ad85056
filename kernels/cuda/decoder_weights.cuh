// The forms of weights that DecoderPass()'s kernel reads. For decoder_pass_sm90.cu alone.
//
// A policy says of a unit, which is 64 columns of two boxes of 64 rows of W:
//
//   struct Weight {
//     kBoxBytes       of a box in the ring
//     kIsOperand      whether a box is a left operand of wgmma as it lies there
//     kHasRowScales   whether sums are multiplied by Product::scales
//     // One thread: copies a box, of which kBoxBytes are announced to the barrier.
//     static void Copy(const Params&, const Box&, uint32_t shared, uint32_t barrier,
//                      uint64_t policy);
//     // Unless kIsOperand: what thread `thread` of a warpgroup makes of the box at `box`.
//     template <typename T> struct Operands {
//       Operands(const unsigned char* box, int thread);
//       // The left operand of wgmma m64k16 for columns 16 step on; steps are taken in order.
//       void Make(int step, uint32_t (&out)[4]);
//     };
//   };
#ifndef QUIVER_KERNELS_CUDA_DECODER_WEIGHTS_CUH_
#define QUIVER_KERNELS_CUDA_DECODER_WEIGHTS_CUH_

#include <cstdint>

#include "kernels/cuda/decoder_device.cuh"
#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/hopper_narrow.cuh"
#include "kernels/cuda/int4.cuh"
#include "kernels/cuda/int4_matrix.h"

namespace quiver::decoder {

// Of W of a layer: 64 rows from `row` on, of the columns of `chunk`.
struct Box {
  int product;
  int layer;
  int row;
  int chunk;
};

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

// By the product's map.
__device__ __forceinline__ void CopyMapped(const Params& p, const Box& box, uint32_t shared,
                                           uint32_t barrier, uint64_t policy) {
  CopyBox3(shared, &p.weight_maps[box.product], box.chunk * kChunk, box.row, box.layer, barrier,
           policy);
}

#endif

struct HalfWeight {
  static constexpr int kBoxBytes = kBoxRows * kChunk * 2;
  static constexpr bool kIsOperand = true;
  static constexpr bool kHasRowScales = false;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  static __device__ __forceinline__ void Copy(const Params& p, const Box& box, uint32_t shared,
                                              uint32_t barrier, uint64_t policy) {
    CopyMapped(p, box, shared, barrier, policy);
  }
#endif
};

struct Fp8Weight {
  static constexpr int kBoxBytes = kBoxRows * kChunk;
  static constexpr bool kIsOperand = false;
  static constexpr bool kHasRowScales = true;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  static __device__ __forceinline__ void Copy(const Params& p, const Box& box, uint32_t shared,
                                              uint32_t barrier, uint64_t policy) {
    CopyMapped(p, box, shared, barrier, policy);
  }

  // Rows of 64 bytes, which the copy's swizzle spans: 16 bytes at c of row r are at c ^ r / 2 % 4.
  template <typename T>
  struct Operands {
    __device__ __forceinline__ Operands(const unsigned char* box, int thread) {
      const int lane = thread % 32;
      row = box + (thread / 32 * 16 + lane / 4) * kChunk + lane % 4 * 2;
      swizzle = lane / 8;
    }
    __device__ __forceinline__ void Make(int step, uint32_t (&out)[4]) const {
      const unsigned char* low = row + ((step ^ swizzle) * 16);
      fp8::LeftOperand<T>(low, low + 8 * kChunk, out);
    }
    const unsigned char* row;
    int swizzle;
  };
#endif
};

// A box is half of int4_matrix.h's unit, and of its scales what the half's columns have.
template <int kGroup>
struct Int4Weight {
  static constexpr int64_t kUnitBytes = Int4UnitBytes(kGroup);
  static constexpr int kNibbleBytes = kInt4NibbleBytes / 2;
  static constexpr int kGroups = kGroup < kChunk ? kChunk / kGroup : 1;  // of a box
  static constexpr int kScaleBytes = kGroups * kInt4GroupBytes;
  static constexpr int kBoxBytes = kNibbleBytes + kScaleBytes;
  static constexpr bool kIsOperand = false;
  static constexpr bool kHasRowScales = false;
  static_assert(kBoxRows == kInt4PanelRows && 2 * kChunk == kInt4UnitColumns);

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  static __device__ __forceinline__ void Copy(const Params& p, const Box& box, uint32_t shared,
                                              uint32_t barrier, uint64_t policy) {
    const Product& product = p.products[box.product];
    const int64_t units = (product.chunks + 1) / 2;
    const int half = box.chunk % 2;
    const unsigned char* unit = OfLayer(p, product.weight, box.layer) +
                                (box.row / kInt4PanelRows * units + box.chunk / 2) * kUnitBytes;
    CopyBytes(shared, unit + half * kNibbleBytes, kNibbleBytes, barrier, policy);
    const int group = half * kChunk / kGroup;
    CopyBytes(shared + kNibbleBytes, unit + kInt4NibbleBytes + group * kInt4GroupBytes, kScaleBytes,
              barrier, policy);
  }

  template <typename T>
  struct Operands {
    __device__ __forceinline__ Operands(const unsigned char* box, int thread)
        : four(reinterpret_cast<const uint4*>(box)[thread]),
          scales(reinterpret_cast<const uint32_t*>(box + kNibbleBytes) + thread / 32 * 16 +
                 thread % 32 / 4) {}
    __device__ __forceinline__ void Make(int step, uint32_t (&out)[4]) const {
      const uint32_t word = step == 0 ? four.x : step == 1 ? four.y : step == 2 ? four.z : four.w;
      const int g = step * 16 / kGroup * kInt4PanelRows;
      int4::Dequantize<T>(word, int4::RowScale<T>(scales[g]), int4::RowScale<T>(scales[g + 8]),
                          out);
    }
    const uint4 four;
    const uint32_t* const scales;
  };
#endif
};

}  // namespace quiver::decoder

#endif  // QUIVER_KERNELS_CUDA_DECODER_WEIGHTS_CUH_
