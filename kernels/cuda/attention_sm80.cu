// Attention by mma.sync, sm_80 and up.
//
// Work mapping: a block computes one tile of queries of one head, a warp 16 or 32 of its rows over
// all keys. Keys come in blocks of 64 through one K and one V buffer: V's copy runs under Q K^T,
// the next K's under softmax and P V, and a second block on the same multiprocessor fills the
// gaps. Rows of shared memory are swizzled in 16-byte chunks, so that ldmatrix and the copies meet
// no bank conflict.
//
// Bound: 4 * head_dim operations for each visible pair against the rate of mma.sync, which is about
// 0.6 of wgmma's on Hopper. 32 rows a warp halve the shared-memory reads of K and V for each
// product; with 16 they take as long as the products.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/launch.cuh"

namespace quiver {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kBlockKeys = 64;

struct Sm80Params {
  const void* q;
  const void* k;
  const void* v;
  void* out;
  int64_t q_stride;
  int64_t k_stride;
  int64_t v_stride;
  int64_t out_stride;
  const AttentionTile* tiles;
  int first_head;
  int num_heads;
  int group;  // query heads of one key head
  bool causal;
  float scale_log2;
};

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies 16 bytes, or writes 16 zero bytes where `valid` is false.
__device__ __forceinline__ void CopyAsync16(uint32_t shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(bytes)
               : "memory");
}

__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most kPending committed groups of copies are under way.
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ void LoadMatrix4(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ void LoadMatrix4Transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

template <typename T>
__device__ __forceinline__ void Multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

template <typename T>
__device__ __forceinline__ uint32_t Pack(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
  }
}

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Byte offset of 16-byte chunk `chunk` of row `row` in a swizzled tile of kDim columns.
template <int kDim>
__device__ __forceinline__ uint32_t ChunkOffset(int row, int chunk) {
  if constexpr (kDim == 32) {
    return row * 64 + ((chunk ^ ((row >> 1) & 3)) << 4);
  } else {
    return row * (kDim * 2) + ((chunk ^ (row & 7)) << 4);
  }
}

// Starts the copy of rows [0, kRows) of `source`, `valid_rows` of them, the others as zeros.
template <int kDim, int kRows>
__device__ __forceinline__ void CopyRows(uint32_t shared, const char* source, int64_t stride_bytes,
                                         int valid_rows) {
  constexpr int kChunks = kDim / 8;
  constexpr int kRowsPerPass = kThreads / kChunks;
  const int chunk = threadIdx.x % kChunks;
#pragma unroll
  for (int pass = 0; pass < kRows / kRowsPerPass; ++pass) {
    const int row = pass * kRowsPerPass + threadIdx.x / kChunks;
    const bool valid = row < valid_rows;
    const char* from = source + (valid ? row : 0) * stride_bytes + chunk * 16;
    CopyAsync16(shared + ChunkOffset<kDim>(row, chunk), from, valid);
  }
}

// kSlabs: the 16-row slabs of a warp.
template <typename T, int kDim, int kSlabs>
__global__ void __launch_bounds__(kThreads)
    AttentionSm80Kernel(const __grid_constant__ Sm80Params params) {
  constexpr int kWarpRows = kSlabs * 16;
  constexpr int kTileRows = kWarps * kWarpRows;
  constexpr int kRowBytes = kDim * 2;
  constexpr int kKeyGroups = kBlockKeys / 8;
  constexpr int kDimGroups = kDim / 8;

  extern __shared__ __align__(128) char shared[];
  const uint32_t q_shared = SharedAddress(shared);
  const uint32_t k_shared = q_shared + kTileRows * kRowBytes;
  const uint32_t v_shared = k_shared + kBlockKeys * kRowBytes;

  WaitForEarlierKernels();
  const AttentionTile tile = params.tiles[blockIdx.x / params.num_heads];
  if (tile.num_rows <= 0) return;
  const int head = params.first_head + blockIdx.x % params.num_heads;
  const int kv_head = head / params.group;
  const int keys =
      params.causal ? min(tile.kv_rows, tile.q_position + tile.num_rows) : tile.kv_rows;
  const int num_blocks = (keys + kBlockKeys - 1) / kBlockKeys;

  const int64_t q_stride = params.q_stride * 2;
  const int64_t k_stride = params.k_stride * 2;
  const int64_t v_stride = params.v_stride * 2;
  const char* q = static_cast<const char*>(params.q) + tile.q_row * q_stride + head * kRowBytes;
  const char* k = static_cast<const char*>(params.k) + tile.kv_row * k_stride + kv_head * kRowBytes;
  const char* v = static_cast<const char*>(params.v) + tile.kv_row * v_stride + kv_head * kRowBytes;

  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int warp_row = warp * kWarpRows;
  const bool warp_has_rows = warp_row < tile.num_rows;
  const int warp_last_position = tile.q_position + warp_row + kWarpRows - 1;

  CopyRows<kDim, kTileRows>(q_shared, q, q_stride, tile.num_rows);
  CopyRows<kDim, kBlockKeys>(k_shared, k, k_stride, keys);
  CommitCopies();
  CopyRows<kDim, kBlockKeys>(v_shared, v, v_stride, keys);
  CommitCopies();

  float acc[kSlabs][kDimGroups][4];
  float row_max[kSlabs][2];
  float row_sum[kSlabs][2];
#pragma unroll
  for (int slab = 0; slab < kSlabs; ++slab) {
#pragma unroll
    for (int j = 0; j < kDimGroups; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) acc[slab][j][e] = 0;
    }
    row_max[slab][0] = row_max[slab][1] = -INFINITY;
    row_sum[slab][0] = row_sum[slab][1] = 0;
  }

  for (int block = 0; block < num_blocks; ++block) {
    const int key0 = block * kBlockKeys;
    const bool active = warp_has_rows && (!params.causal || key0 <= warp_last_position);
    if (block == 0) {
      WaitForCopies<1>();
      __syncthreads();
    } else {
      WaitForCopies<0>();
      __syncthreads();
      CopyRows<kDim, kBlockKeys>(v_shared, v + key0 * v_stride, v_stride, keys - key0);
      CommitCopies();
    }

    float s[kSlabs][kKeyGroups][4];
    if (active) {
#pragma unroll
      for (int slab = 0; slab < kSlabs; ++slab) {
#pragma unroll
        for (int j = 0; j < kKeyGroups; ++j) {
#pragma unroll
          for (int e = 0; e < 4; ++e) s[slab][j][e] = 0;
        }
      }
#pragma unroll
      for (int step = 0; step < kDim / 16; ++step) {
        uint32_t a[kSlabs][4];
#pragma unroll
        for (int slab = 0; slab < kSlabs; ++slab) {
          LoadMatrix4(a[slab], q_shared + ChunkOffset<kDim>(warp_row + slab * 16 + lane % 16,
                                                            step * 2 + lane / 16));
        }
#pragma unroll
        for (int j = 0; j < kKeyGroups; j += 2) {
          uint32_t b[4];
          LoadMatrix4(b, k_shared + ChunkOffset<kDim>(j * 8 + lane / 16 * 8 + lane % 8,
                                                      step * 2 + lane / 8 % 2));
#pragma unroll
          for (int slab = 0; slab < kSlabs; ++slab) {
            Multiply<T>(s[slab][j], a[slab], b[0], b[1]);
            Multiply<T>(s[slab][j + 1], a[slab], b[2], b[3]);
          }
        }
      }
      const bool crosses_end = key0 + kBlockKeys > keys;
      const bool crosses_diagonal =
          params.causal && key0 + kBlockKeys - 1 > tile.q_position + warp_row;
      if (crosses_end || crosses_diagonal) {
#pragma unroll
        for (int slab = 0; slab < kSlabs; ++slab) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int row = warp_row + slab * 16 + lane / 4 + e / 2 * 8;
            int limit = keys - key0;
            if (params.causal) limit = min(limit, tile.q_position + row + 1 - key0);
#pragma unroll
            for (int j = 0; j < kKeyGroups; ++j) {
              if (j * 8 + lane % 4 * 2 + e % 2 >= limit) s[slab][j][e] = -INFINITY;
            }
          }
        }
      }
    }

    WaitForCopies<0>();
    __syncthreads();
    if (block + 1 < num_blocks) {
      const int next = key0 + kBlockKeys;
      CopyRows<kDim, kBlockKeys>(k_shared, k + next * k_stride, k_stride, keys - next);
      CommitCopies();
    }
    if (!active) continue;

#pragma unroll
    for (int slab = 0; slab < kSlabs; ++slab) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = row_max[slab][half];
#pragma unroll
        for (int j = 0; j < kKeyGroups; ++j) {
          top = fmaxf(top, fmaxf(s[slab][j][half * 2], s[slab][j][half * 2 + 1]));
        }
        top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, 2));
        // A row sees key 0 in block 0, so that `top` is finite from the start.
        const float shift = top * params.scale_log2;
        const float rescale = Exp2(fmaf(row_max[slab][half], params.scale_log2, -shift));
        row_max[slab][half] = top;
        float sum = 0;
#pragma unroll
        for (int j = 0; j < kKeyGroups; ++j) {
#pragma unroll
          for (int e = half * 2; e < half * 2 + 2; ++e) {
            s[slab][j][e] = Exp2(fmaf(s[slab][j][e], params.scale_log2, -shift));
            sum += s[slab][j][e];
          }
        }
        row_sum[slab][half] = fmaf(row_sum[slab][half], rescale, sum);
#pragma unroll
        for (int j = 0; j < kDimGroups; ++j) {
          acc[slab][j][half * 2] *= rescale;
          acc[slab][j][half * 2 + 1] *= rescale;
        }
      }
    }

#pragma unroll
    for (int step = 0; step < kBlockKeys / 16; ++step) {
      uint32_t p[kSlabs][4];
#pragma unroll
      for (int slab = 0; slab < kSlabs; ++slab) {
        const auto& low = s[slab][step * 2];
        const auto& high = s[slab][step * 2 + 1];
        p[slab][0] = Pack<T>(low[0], low[1]);
        p[slab][1] = Pack<T>(low[2], low[3]);
        p[slab][2] = Pack<T>(high[0], high[1]);
        p[slab][3] = Pack<T>(high[2], high[3]);
      }
#pragma unroll
      for (int j = 0; j < kDimGroups; j += 2) {
        uint32_t b[4];
        LoadMatrix4Transposed(
            b,
            v_shared + ChunkOffset<kDim>(step * 16 + lane / 8 % 2 * 8 + lane % 8, j + lane / 16));
#pragma unroll
        for (int slab = 0; slab < kSlabs; ++slab) {
          Multiply<T>(acc[slab][j], p[slab], b[0], b[1]);
          Multiply<T>(acc[slab][j + 1], p[slab], b[2], b[3]);
        }
      }
    }
  }

  if (!warp_has_rows) return;
    // The output goes through the warp's own rows of Q's buffer, to leave in 16-byte stores.
#pragma unroll
  for (int slab = 0; slab < kSlabs; ++slab) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = row_sum[slab][half];
      sum += __shfl_xor_sync(0xffffffff, sum, 1);
      sum += __shfl_xor_sync(0xffffffff, sum, 2);
      const float inverse = 1.0f / sum;
      const int row = warp_row + slab * 16 + half * 8 + lane / 4;
#pragma unroll
      for (int j = 0; j < kDimGroups; ++j) {
        char* to = shared + ChunkOffset<kDim>(row, j) + lane % 4 * 4;
        *reinterpret_cast<uint32_t*>(to) =
            Pack<T>(acc[slab][j][half * 2] * inverse, acc[slab][j][half * 2 + 1] * inverse);
      }
    }
  }
  __syncwarp();
  constexpr int kChunks = kDim / 8;
  const int64_t out_stride = params.out_stride * 2;
  char* out = static_cast<char*>(params.out) + tile.q_row * out_stride + head * kRowBytes;
#pragma unroll
  for (int pass = 0; pass < kWarpRows * kChunks / 32; ++pass) {
    const int row = warp_row + (pass * 32 + lane) / kChunks;
    const int chunk = lane % kChunks;
    if (row < tile.num_rows) {
      *reinterpret_cast<uint4*>(out + row * out_stride + chunk * 16) =
          *reinterpret_cast<const uint4*>(shared + ChunkOffset<kDim>(row, chunk));
    }
  }
}

template <typename T, int kDim, int kSlabs>
cudaError_t LaunchKernel(const Sm80Params& params, int num_blocks, cudaStream_t stream) {
  constexpr int kSharedBytes = (kWarps * kSlabs * 16 + 2 * kBlockKeys) * kDim * 2;
  auto* kernel = AttentionSm80Kernel<T, kDim, kSlabs>;
  if constexpr (kSharedBytes > 48 * 1024) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
    if (error != cudaSuccess) return error;
  }
  return Launch(kernel, static_cast<unsigned>(num_blocks), kThreads, kSharedBytes, stream, params);
}

template <typename T, int kSlabs>
cudaError_t LaunchDim(int head_dim, const Sm80Params& params, int num_blocks, cudaStream_t stream) {
  switch (head_dim) {
    case 32:
      return LaunchKernel<T, 32, kSlabs>(params, num_blocks, stream);
    case 64:
      return LaunchKernel<T, 64, kSlabs>(params, num_blocks, stream);
    default:
      return LaunchKernel<T, 128, kSlabs>(params, num_blocks, stream);
  }
}

}  // namespace

cudaError_t AttentionSm80(const AttentionShape& shape, const AttentionLaunch& launch,
                          const AttentionTensors& tensors, float scale, cudaStream_t stream) {
  Sm80Params params;
  params.q = tensors.q;
  params.k = tensors.k;
  params.v = tensors.v;
  params.out = tensors.out;
  params.q_stride = tensors.q_stride;
  params.k_stride = tensors.k_stride;
  params.v_stride = tensors.v_stride;
  params.out_stride = tensors.out_stride;
  params.tiles = tensors.tiles + launch.first_tile;
  params.first_head = launch.first_head;
  params.num_heads = launch.num_heads;
  params.group = shape.num_heads / shape.num_kv_heads;
  params.causal = shape.causal;
  params.scale_log2 = scale * kLog2E;

  const int blocks = launch.num_tiles * launch.num_heads;
  const bool is_short = launch.kernel == AttentionKernel::kShort;
  if (shape.type == AttentionType::kF16) {
    return is_short ? LaunchDim<__half, 1>(shape.head_dim, params, blocks, stream)
                    : LaunchDim<__half, 2>(shape.head_dim, params, blocks, stream);
  }
  return is_short ? LaunchDim<__nv_bfloat16, 1>(shape.head_dim, params, blocks, stream)
                  : LaunchDim<__nv_bfloat16, 2>(shape.head_dim, params, blocks, stream);
}

}  // namespace quiver
