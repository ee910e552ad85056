// Hopper's building blocks as thin wrappers: mbarriers, the tensor copy engine, wgmma and the
// register hand-over between warpgroups. For sm_90a device code only.
#ifndef QUIVER_KERNELS_CUDA_HOPPER_CUH_
#define QUIVER_KERNELS_CUDA_HOPPER_CUH_

#include <cuda.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace quiver::hopper {

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// ---- mbarriers ----

__device__ __forceinline__ void BarrierInit(uint32_t barrier, uint32_t count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

// Makes initialized barriers visible to the copy engine.
__device__ __forceinline__ void BarrierInitFence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void BarrierArrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and lets the phase complete only after `bytes` more have been copied.
__device__ __forceinline__ void BarrierArriveExpect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void BarrierWait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// At the barrier in the same place of the cluster's block `rank`. What this thread has read or
// multiplied before may then be overwritten.
__device__ __forceinline__ void BarrierArriveAt(uint32_t barrier, int rank) {
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(barrier),
      "r"(rank)
      : "memory");
}

// The same, and what this thread has written before is seen by threads that wait with
// BarrierWaitCluster.
__device__ __forceinline__ void BarrierPublishAt(uint32_t barrier, int rank) {
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n}" ::"r"(barrier),
      "r"(rank)
      : "memory");
}

__device__ __forceinline__ void BarrierWaitCluster(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@done bra finished;\n"
      "bra again;\n"
      "finished:\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// Hardware barrier `id` among `threads` threads, those that arrive and those that wait.
__device__ __forceinline__ void NamedBarrierSync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void NamedBarrierArrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- the tensor copy engine ----

__device__ __forceinline__ void PrefetchTensorMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

__device__ __forceinline__ void CopyBox3(uint32_t shared, const CUtensorMap* map, int x, int y,
                                         int z, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%2, %3, %4}], [%5];" ::"r"(shared),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier)
      : "memory");
}

// Into the same place of both blocks of a cluster of two, telling the barriers of both.
__device__ __forceinline__ void CopyBox3ToBoth(uint32_t shared, const CUtensorMap* map, int x,
                                               int y, int z, uint32_t barrier) {
  constexpr uint16_t kBoth = 3;
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(shared),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier), "h"(kBoth)
      : "memory");
}

// What is read once should leave the cache first.
__device__ __forceinline__ uint64_t EvictFirstPolicy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ __forceinline__ void CopyBox3(uint32_t shared, const CUtensorMap* map, int x, int y,
                                         int z, uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(shared),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier), "l"(policy)
      : "memory");
}

__device__ __forceinline__ void CopyBox2(uint32_t shared, const CUtensorMap* map, int x, int y,
                                         uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%2, %3}], [%4];" ::"r"(shared),
      "l"(map), "r"(x), "r"(y), "r"(barrier)
      : "memory");
}

__device__ __forceinline__ void CopyBox2(uint32_t shared, const CUtensorMap* map, int x, int y,
                                         uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared),
      "l"(map), "r"(x), "r"(y), "r"(barrier), "l"(policy)
      : "memory");
}

__device__ __forceinline__ void CopyBox2ToBoth(uint32_t shared, const CUtensorMap* map, int x,
                                               int y, uint32_t barrier) {
  constexpr uint16_t kBoth = 3;
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared),
      "l"(map), "r"(x), "r"(y), "r"(barrier), "h"(kBoth)
      : "memory");
}

// From shared memory, in the box's layout. What lies beyond the tensor is not written.
__device__ __forceinline__ void StoreBox2(const CUtensorMap* map, uint32_t shared, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map),
      "r"(x), "r"(y), "r"(shared)
      : "memory");
}

// Makes a group of this thread's stores since the last one.
__device__ __forceinline__ void CommitStores() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Until all of this thread's groups have read shared memory.
__device__ __forceinline__ void AwaitStoresRead() {
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

// Until all of this thread's groups have been written.
__device__ __forceinline__ void AwaitStores() {
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// Orders ordinary shared-memory writes before reads by the copy engine and the tensor cores.
__device__ __forceinline__ void FenceAsyncProxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- clusters ----

__device__ __forceinline__ int ClusterRank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

__device__ __forceinline__ int ClusterBlocks() {
  int blocks;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(blocks));
  return blocks;
}

// Among all threads of the cluster; orders their accesses to each other's shared memory.
__device__ __forceinline__ void ClusterSync() {
  asm volatile(
      "barrier.cluster.arrive.release;\n"
      "barrier.cluster.wait.acquire;" ::
          : "memory");
}

// From `address` of the shared memory of the cluster's block `rank`.
__device__ __forceinline__ float4 LoadFromBlock(uint32_t address, int rank) {
  float4 value;
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %4, %5;\n"
      "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [remote];\n"
      "}"
      : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
      : "r"(address), "r"(rank)
      : "memory");
  return value;
}

// To `address` of the shared memory of the cluster's block `rank`.
__device__ __forceinline__ void StoreToBlock(uint32_t address, int rank, ::int4 value) {
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "st.shared::cluster.v4.s32 [remote], {%2, %3, %4, %5};\n}" ::"r"(address),
      "r"(rank), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
      : "memory");
}

// ---- registers ----

template <int kCount>
__device__ __forceinline__ void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

template <int kCount>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

// ---- wgmma ----

// Descriptor of a tile in shared memory with 128-byte rows, 128-byte swizzle, on a 1024-byte border
// (or whole rows or 32-byte steps from it). For an operand whose columns are the summed dimension
// `leading_bytes` does not count; for one whose rows are, it is the distance of two 64-column
// tiles.
__device__ __forceinline__ uint64_t TileDescriptor(uint32_t address, uint32_t leading_bytes) {
  constexpr uint64_t kRowGroupBytes = 1024;
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) |
         (static_cast<uint64_t>(leading_bytes >> 4) << 16) | ((kRowGroupBytes >> 4) << 32) |
         kSwizzle128;
}

__device__ __forceinline__ void MmaFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void MmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most kPending committed groups are under way.
template <int kPending>
__device__ __forceinline__ void MmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Keeps the compiler from moving accesses to `d` across this point.
template <int kCount>
__device__ __forceinline__ void PinRegisters(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

#define QUIVER_WGMMA_D                                                               \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
#define QUIVER_WGMMA_D_OPERANDS                                                                   \
  "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), \
      "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]),    \
      "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]),  \
      "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]),  \
      "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),  \
      "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]),  \
      "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]),  \
      "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]),  \
      "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])

// d (+)= a b^T: 64 x 128 of a warpgroup, a and b both with 16 summed columns in shared memory. `d`
// is overwritten if `accumulate` is 0.
template <typename T>
__device__ __forceinline__ void MmaShared(float (&d)[64], uint64_t a, uint64_t b, int accumulate) {
#define QUIVER_WGMMA(TYPE)                                                            \
  asm volatile(                                                                       \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                    \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " " QUIVER_WGMMA_D \
      "%64, %65, p, 1, 1, 0, 0;\n}"                                                   \
      : QUIVER_WGMMA_D_OPERANDS                                                       \
      : "l"(a), "l"(b), "r"(accumulate))
  if constexpr (std::is_same_v<T, __half>) {
    QUIVER_WGMMA("f16");
  } else {
    QUIVER_WGMMA("bf16");
  }
#undef QUIVER_WGMMA
}

// d += a b: a, 64 x 16, in registers; b, 16 x 128, with its summed dimension along the rows.
template <typename T>
__device__ __forceinline__ void MmaRegisters(float (&d)[64], const uint32_t (&a)[4], uint64_t b) {
#define QUIVER_WGMMA(TYPE)                                                            \
  asm volatile(                                                                       \
      "{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\n"                                      \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " " QUIVER_WGMMA_D \
      "{%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}"                                     \
      : QUIVER_WGMMA_D_OPERANDS                                                       \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
  if constexpr (std::is_same_v<T, __half>) {
    QUIVER_WGMMA("f16");
  } else {
    QUIVER_WGMMA("bf16");
  }
#undef QUIVER_WGMMA
}

// d += a b^T: 64 x N of a warpgroup, N = 2 * kCount; a and b both with 16 summed columns in shared
// memory.
template <typename T, int kCount>
__device__ __forceinline__ void MmaSharedNarrow(float (&d)[kCount], uint64_t a, uint64_t b) {
#define QUIVER_WGMMA_N(N, TYPE, REGISTERS, A_AND_B, ...)                                     \
  asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\nwgmma.mma_async.sync.aligned.m64n" N \
               "k16.f32." TYPE "." TYPE " {" REGISTERS "}, " A_AND_B ", p, 1, 1, 0, 0;\n}"   \
               : __VA_ARGS__                                                                 \
               : "l"(a), "l"(b))
#define QUIVER_WGMMA(N, REGISTERS, A_AND_B, ...)                \
  if constexpr (std::is_same_v<T, __half>) {                    \
    QUIVER_WGMMA_N(N, "f16", REGISTERS, A_AND_B, __VA_ARGS__);  \
  } else {                                                      \
    QUIVER_WGMMA_N(N, "bf16", REGISTERS, A_AND_B, __VA_ARGS__); \
  }
  if constexpr (kCount == 4) {
    QUIVER_WGMMA("8", "%0, %1, %2, %3", "%4, %5", "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]))
  } else if constexpr (kCount == 8) {
    QUIVER_WGMMA("16", "%0, %1, %2, %3, %4, %5, %6, %7", "%8, %9", "+f"(d[0]), "+f"(d[1]),
                 "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]))
  } else if constexpr (kCount == 16) {
    QUIVER_WGMMA("32", "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15",
                 "%16, %17", "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                 "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                 "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]))
  } else {
    static_assert(kCount == 32);
    QUIVER_WGMMA("64",
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "
                 "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31",
                 "%32, %33", "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]),
                 "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
                 "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]),
                 "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
                 "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]),
                 "+f"(d[30]), "+f"(d[31]))
  }
#undef QUIVER_WGMMA
#undef QUIVER_WGMMA_N
}

#undef QUIVER_WGMMA_D
#undef QUIVER_WGMMA_D_OPERANDS

}  // namespace quiver::hopper

#endif  // QUIVER_KERNELS_CUDA_HOPPER_CUH_
