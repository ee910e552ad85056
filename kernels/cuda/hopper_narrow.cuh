// More of Hopper's building blocks, for products of few columns whose left operand is in registers,
// and for copies of plain memory. For sm_90a device code only.
#ifndef QUIVER_KERNELS_CUDA_HOPPER_NARROW_CUH_
#define QUIVER_KERNELS_CUDA_HOPPER_NARROW_CUH_

#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace quiver::hopper {

// `bytes` from global to shared memory, both aligned to 16 as their number is.
__device__ __forceinline__ void CopyBytes(uint32_t shared, const void* global, uint32_t bytes,
                                          uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], "
      "[%1], %2, [%3], %4;" ::"r"(shared),
      "l"(global), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

// Among all threads of the cluster, without ordering their accesses.
__device__ __forceinline__ void ClusterMeet() {
  asm volatile(
      "barrier.cluster.arrive.relaxed;\n"
      "barrier.cluster.wait;" ::
          : "memory");
}

// What other blocks read soon should stay in the cache.
__device__ __forceinline__ uint64_t EvictLastPolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// d += a b^T: 64 x N of a warpgroup, N = 2 * kCount; a, 64 x 16, in registers; b with 16 summed
// columns in shared memory.
template <typename T, int kCount>
__device__ __forceinline__ void MmaRegistersNarrow(float (&d)[kCount], const uint32_t (&a)[4],
                                                   uint64_t b) {
#define QUIVER_WGMMA_N(N, TYPE, REGISTERS, A_AND_B, ...)                                     \
  asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\nwgmma.mma_async.sync.aligned.m64n" N \
               "k16.f32." TYPE "." TYPE " {" REGISTERS "}, " A_AND_B ", p, 1, 1, 0;\n}"      \
               : __VA_ARGS__                                                                 \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define QUIVER_WGMMA(N, REGISTERS, A_AND_B, ...)                \
  if constexpr (std::is_same_v<T, __half>) {                    \
    QUIVER_WGMMA_N(N, "f16", REGISTERS, A_AND_B, __VA_ARGS__);  \
  } else {                                                      \
    QUIVER_WGMMA_N(N, "bf16", REGISTERS, A_AND_B, __VA_ARGS__); \
  }
  if constexpr (kCount == 4) {
    QUIVER_WGMMA("8", "%0, %1, %2, %3", "{%4, %5, %6, %7}, %8", "+f"(d[0]), "+f"(d[1]), "+f"(d[2]),
                 "+f"(d[3]))
  } else if constexpr (kCount == 8) {
    QUIVER_WGMMA("16", "%0, %1, %2, %3, %4, %5, %6, %7", "{%8, %9, %10, %11}, %12", "+f"(d[0]),
                 "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]))
  } else if constexpr (kCount == 16) {
    QUIVER_WGMMA("32", "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15",
                 "{%16, %17, %18, %19}, %20", "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]),
                 "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),
                 "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]))
  } else {
    static_assert(kCount == 32);
    QUIVER_WGMMA("64",
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
                 "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31",
                 "{%32, %33, %34, %35}, %36", "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]),
                 "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),
                 "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
                 "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]),
                 "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
                 "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]))
  }
#undef QUIVER_WGMMA
#undef QUIVER_WGMMA_N
}

}  // namespace quiver::hopper

#endif  // QUIVER_KERNELS_CUDA_HOPPER_NARROW_CUH_
