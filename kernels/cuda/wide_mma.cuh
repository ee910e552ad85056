// wgmma over tiles of up to 256 columns, both operands in shared memory. For sm_90a device code
// only.
#ifndef QUIVER_KERNELS_CUDA_WIDE_MMA_CUH_
#define QUIVER_KERNELS_CUDA_WIDE_MMA_CUH_

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>
#include <type_traits>

namespace quiver::hopper {

// Registers 16 (j - 1) to 16 j - 1 of the sums by their numbers in the instruction, after a comma.
#define QUIVER_MMA_NAMES_1 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define QUIVER_MMA_NAMES_2 \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define QUIVER_MMA_NAMES_3 \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define QUIVER_MMA_NAMES_4 \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define QUIVER_MMA_NAMES_5 \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define QUIVER_MMA_NAMES_6 \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define QUIVER_MMA_NAMES_7 \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define QUIVER_MMA_NAMES_8                                                                       \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, " \
  "%127"
#define QUIVER_MMA_NAMES_8_HALF ", %112, %113, %114, %115, %116, %117, %118, %119"

#define QUIVER_MMA_SUMS_8(i)                                                                  \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define QUIVER_MMA_SUMS_16(i) QUIVER_MMA_SUMS_8(i), QUIVER_MMA_SUMS_8(i + 8)
#define QUIVER_MMA_SUMS_64 \
  QUIVER_MMA_SUMS_16(0), QUIVER_MMA_SUMS_16(16), QUIVER_MMA_SUMS_16(32), QUIVER_MMA_SUMS_16(48)

// d (+)= a b^T: 64 x kColumns of a warpgroup, a and b both with 32 bytes of summed columns in
// shared memory. `d` is overwritten if `accumulate` is 0.
template <typename T, int kColumns>
__device__ __forceinline__ void MmaWide(float (&d)[kColumns / 2], uint64_t a, uint64_t b,
                                        int accumulate) {
  // 16-bit operands may lie either way, which the last two numbers tell.
#define QUIVER_MMA(N, TYPE, ORDER, NAMES, A, B, ACCUMULATE, ...)                          \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ACCUMULATE                             \
               ", 0;\nwgmma.mma_async.sync.aligned.m64n" N TYPE " {" NAMES "}, " A ", " B \
               ", p, 1, 1" ORDER ";\n}"                                                   \
               : __VA_ARGS__                                                              \
               : "l"(a), "l"(b), "r"(accumulate))
#define QUIVER_MMA_TYPED(N, NAMES, A, B, ACCUMULATE, ...)                               \
  if constexpr (std::is_same_v<T, __nv_fp8_e4m3>) {                                     \
    QUIVER_MMA(N, "k32.f32.e4m3.e4m3", "", NAMES, A, B, ACCUMULATE, __VA_ARGS__);       \
  } else if constexpr (std::is_same_v<T, __half>) {                                     \
    QUIVER_MMA(N, "k16.f32.f16.f16", ", 0, 0", NAMES, A, B, ACCUMULATE, __VA_ARGS__);   \
  } else {                                                                              \
    QUIVER_MMA(N, "k16.f32.bf16.bf16", ", 0, 0", NAMES, A, B, ACCUMULATE, __VA_ARGS__); \
  }
#define QUIVER_MMA_NAMES_TO_4 \
  QUIVER_MMA_NAMES_1 QUIVER_MMA_NAMES_2 QUIVER_MMA_NAMES_3 QUIVER_MMA_NAMES_4
#define QUIVER_MMA_NAMES_TO_7 \
  QUIVER_MMA_NAMES_TO_4 QUIVER_MMA_NAMES_5 QUIVER_MMA_NAMES_6 QUIVER_MMA_NAMES_7
  if constexpr (kColumns == 128) {
    QUIVER_MMA_TYPED("128", QUIVER_MMA_NAMES_TO_4, "%64", "%65", "%66", QUIVER_MMA_SUMS_64)
  } else if constexpr (kColumns == 160) {
    QUIVER_MMA_TYPED("160", QUIVER_MMA_NAMES_TO_4 QUIVER_MMA_NAMES_5, "%80", "%81", "%82",
                     QUIVER_MMA_SUMS_64, QUIVER_MMA_SUMS_16(64))
  } else if constexpr (kColumns == 192) {
    QUIVER_MMA_TYPED("192", QUIVER_MMA_NAMES_TO_4 QUIVER_MMA_NAMES_5 QUIVER_MMA_NAMES_6, "%96",
                     "%97", "%98", QUIVER_MMA_SUMS_64, QUIVER_MMA_SUMS_16(64),
                     QUIVER_MMA_SUMS_16(80))
  } else if constexpr (kColumns == 240) {
    QUIVER_MMA_TYPED("240", QUIVER_MMA_NAMES_TO_7 QUIVER_MMA_NAMES_8_HALF, "%120", "%121", "%122",
                     QUIVER_MMA_SUMS_64, QUIVER_MMA_SUMS_16(64), QUIVER_MMA_SUMS_16(80),
                     QUIVER_MMA_SUMS_16(96), QUIVER_MMA_SUMS_8(112))
  } else {
    static_assert(kColumns == 256);
    QUIVER_MMA_TYPED("256", QUIVER_MMA_NAMES_TO_7 QUIVER_MMA_NAMES_8, "%128", "%129", "%130",
                     QUIVER_MMA_SUMS_64, QUIVER_MMA_SUMS_16(64), QUIVER_MMA_SUMS_16(80),
                     QUIVER_MMA_SUMS_16(96), QUIVER_MMA_SUMS_16(112))
  }
#undef QUIVER_MMA_NAMES_TO_7
#undef QUIVER_MMA_NAMES_TO_4
#undef QUIVER_MMA_TYPED
#undef QUIVER_MMA
}

}  // namespace quiver::hopper

#undef QUIVER_MMA_SUMS_64
#undef QUIVER_MMA_SUMS_16
#undef QUIVER_MMA_SUMS_8
#undef QUIVER_MMA_NAMES_8_HALF
#undef QUIVER_MMA_NAMES_8
#undef QUIVER_MMA_NAMES_7
#undef QUIVER_MMA_NAMES_6
#undef QUIVER_MMA_NAMES_5
#undef QUIVER_MMA_NAMES_4
#undef QUIVER_MMA_NAMES_3
#undef QUIVER_MMA_NAMES_2
#undef QUIVER_MMA_NAMES_1

#endif  // QUIVER_KERNELS_CUDA_WIDE_MMA_CUH_
