// Attention by wgmma and the tensor copy engine, sm_90a, head_dim 128.
//
// Work mapping: one block a multiprocessor takes items (a tile of 128 queries of one head) off a
// list until it is empty, longest first. Its first warpgroup copies: Q once an item, blocks of 128
// keys through one ring for K and V. Two warpgroups of 64 query rows each compute.
//
// A computing warpgroup overlaps within itself: Q K^T of the next block and P V of this one are in
// flight together, and the next block's softmax runs under P V. This goes on from the last block of
// an item to the first of the next, so that short items cost no start. And it overlaps with its
// neighbour: the two take turns to issue products, so that one's softmax and output run under the
// other's products.
//
// Where key heads have an even number of query heads, blocks work in pairs on two of them: each
// copies half of a block of keys into both, so that it leaves L2 once. Under a limit of power that
// is time.
//
// Bound: 4 * 128 operations for each visible pair against wgmma's dense rate; a block's
// exponentials take half as long as its products. Short sequences: the bytes of Q and the output.
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/attention_kernels.h"
#include "kernels/cuda/attention_sm90.cuh"
#include "kernels/cuda/attention_sm90_compute.cuh"
#include "kernels/cuda/attention_sm90_copy.cuh"
#include "kernels/cuda/tensor_map.h"

namespace quiver {
namespace {

using namespace sm90;

template <typename T, int kBlocks>
__global__ void __launch_bounds__(kThreads, 1)
    AttentionSm90Kernel(const __grid_constant__ Sm90Params params) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ char dynamic[];
  const uint32_t dynamic_address = SharedAddress(dynamic);
  const uint32_t shared = (dynamic_address + 1023) / 1024 * 1024;
  char* shared_bytes = dynamic + (shared - dynamic_address);
  const Barriers barriers{shared + kBarrierOffset};

  if (threadIdx.x == 0) {
    PrefetchTensorMap(&params.q_map);
    PrefetchTensorMap(&params.k_map);
    PrefetchTensorMap(&params.v_map);
    for (int buffer = 0; buffer < kQBuffers; ++buffer) {
      for (int warpgroup = 0; warpgroup < 2; ++warpgroup) {
        BarrierInit(barriers.q_full(buffer, warpgroup), 1);
        BarrierInit(barriers.q_empty(buffer, warpgroup), kComputeWarps / 2);
      }
    }
    for (int stage = 0; stage < kStages; ++stage) {
      BarrierInit(barriers.full(stage), 1);
      BarrierInit(barriers.empty(stage), kComputeWarps * kBlocks);
    }
    for (int slot = 0; slot < kItemSlots; ++slot) {
      BarrierInit(barriers.item_full(slot), 1);
      // And the copying thread of a pair's second block.
      BarrierInit(barriers.item_empty(slot), kComputeWarps * kBlocks + kBlocks - 1);
    }
    BarrierInitFence();
  }
  if constexpr (kBlocks == 1) {
    __syncthreads();
  } else {
    ClusterSync();
  }

  // Through a shuffle, so that the compiler knows that a warp takes one way: products must not be
  // under divergent control flow.
  const int role = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x) / 128, 0);
  if (role == 0) {
    GiveRegisters<40>();
    if (threadIdx.x == 0) Produce<kBlocks>(params, shared_bytes, shared, barriers);
  } else {
    TakeRegisters<232>();
    Consume<T, kBlocks>(params, shared_bytes, shared, barriers, role - 1);
  }
  // The other block still writes here until it has ended, too.
  if constexpr (kBlocks > 1) ClusterSync();
#endif
}

// [rows, heads, 128] with boxes of `box_rows` rows of 64 columns of one head.
bool EncodeRows(const void* base, int64_t stride, int heads, int rows, int box_rows,
                AttentionType type, CUtensorMap* map) {
  static const EncodeTensorMap encode = FindEncodeTensorMap();
  if (encode == nullptr) return false;
  const cuuint64_t dims[3] = {kDim, static_cast<cuuint64_t>(heads), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[2] = {kDim * 2, static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t box[3] = {64, 1, static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[3] = {1, 1, 1};
  return encode(map,
                type == AttentionType::kF16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                            : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                3, const_cast<void*>(base), dims, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <typename T, int kBlocks>
cudaError_t LaunchSm90(const Sm90Params& params, int multiprocessors, cudaStream_t stream) {
  auto* kernel = AttentionSm90Kernel<T, kBlocks>;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytesAligned);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute pairs = {};
  pairs.id = cudaLaunchAttributeClusterDimension;
  pairs.val.clusterDim = {kBlocks, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim =
      std::min(multiprocessors / kBlocks * kBlocks, params.num_tiles * params.num_heads);
  config.blockDim = kThreads;
  config.dynamicSmemBytes = kSharedBytesAligned;
  config.stream = stream;
  config.attrs = &pairs;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, params);
}

}  // namespace

cudaError_t AttentionSm90(const AttentionShape& shape, const AttentionLaunch& launch,
                          const AttentionTensors& tensors, float scale, cudaStream_t stream) {
  if (shape.head_dim != kDim || tensors.counters == nullptr) return cudaErrorInvalidValue;
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  int major = 0;
  int multiprocessors = 0;
  error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  if (major != 9) return cudaErrorInvalidValue;
  error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;

  const int blocks = shape.num_heads / shape.num_kv_heads % 2 == 0 ? 2 : 1;
  Sm90Params params;
  if (!EncodeRows(tensors.q, tensors.q_stride, shape.num_heads, tensors.q_rows, kTileRows / 2,
                  shape.type, &params.q_map) ||
      !EncodeRows(tensors.k, tensors.k_stride, shape.num_kv_heads, tensors.kv_rows,
                  kBlockKeys / blocks, shape.type, &params.k_map) ||
      !EncodeRows(tensors.v, tensors.v_stride, shape.num_kv_heads, tensors.kv_rows,
                  kBlockKeys / blocks, shape.type, &params.v_map)) {
    return cudaErrorInvalidValue;
  }
  params.out = static_cast<char*>(tensors.out);
  params.out_stride_bytes = tensors.out_stride * 2;
  params.tiles = tensors.tiles + launch.first_tile;
  params.counters = tensors.counters;
  params.num_tiles = launch.num_tiles;
  params.first_head = launch.first_head;
  params.num_heads = launch.num_heads;
  params.group = shape.num_heads / shape.num_kv_heads;
  params.causal = shape.causal;
  params.scale_log2 = scale * kLog2E;

  // As many key heads at a time as keep their K and V in L2 for all tiles.
  constexpr int64_t kSectionBytes = 32 << 20;
  const int launch_kv_heads = launch.num_heads / params.group;
  int kv_heads = launch_kv_heads;
  while (kv_heads > 1 &&
         (launch_kv_heads % kv_heads != 0 ||
          static_cast<int64_t>(launch.max_kv_rows) * kDim * 4 * kv_heads > kSectionBytes)) {
    --kv_heads;
  }
  params.section_heads = kv_heads * params.group;

  const bool f16 = shape.type == AttentionType::kF16;
  if (blocks == 2) {
    return f16 ? LaunchSm90<__half, 2>(params, multiprocessors, stream)
               : LaunchSm90<__nv_bfloat16, 2>(params, multiprocessors, stream);
  }
  return f16 ? LaunchSm90<__half, 1>(params, multiprocessors, stream)
             : LaunchSm90<__nv_bfloat16, 1>(params, multiprocessors, stream);
}

}  // namespace quiver
