// DecoderPass() by one persistent kernel, sm_90a.
//
// Work mapping: a block a multiprocessor. One of its threads copies the block's share of all
// weights, product after product and layer after layer, through one ring; two warps copy the
// columns of x that go with them as soon as the grid has made them; two warpgroups multiply, and do
// what stands between the products. From product to product the grid waits for its slowest block,
// and the copies of weights go on meanwhile, as far as the ring: they depend on nothing.
//
// Bound: bytes of the weights against the device's memory.
#include <cuda.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/cuda/decoder_attention.cuh"
#include "kernels/cuda/decoder_copy.cuh"
#include "kernels/cuda/decoder_device.cuh"
#include "kernels/cuda/decoder_pass.h"
#include "kernels/cuda/decoder_product.cuh"
#include "kernels/cuda/decoder_weights.cuh"
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/tensor_map.h"

namespace quiver {
namespace {

using namespace decoder;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ __forceinline__ void ClearShare(float* data, int count) {
  const int step = static_cast<int>(gridDim.x) * kComputeThreads * 4;
  for (int i = (blockIdx.x * kComputeThreads + threadIdx.x) * 4; i < count; i += step) {
    __stcg(reinterpret_cast<float4*>(data + i), make_float4(0, 0, 0, 0));
  }
}

// Clears sums, turns the residual and makes the first operand, a token a block.
template <typename T>
__device__ __forceinline__ void Begin(const Params& p, float* partial) {
  const Product& qkv = p.products[kQkv];
  const Product& gate_up = p.products[kGateUp];
  ClearShare(qkv.sums, qkv.tiles * 2 * kBoxRows * kTokens);
  ClearShare(gate_up.sums, gate_up.tiles * 2 * kBoxRows * kTokens);
  ClearShare(p.squares + kTokens, (2 * p.num_layers - 1) * kTokens);
  const int token = blockIdx.x;
  if (token >= kTokens) return;
  const bool is_row = token < p.rows;
  const float* row = p.in_residual + static_cast<int64_t>(token) * p.hidden;
  float square = 0;
  for (int i = threadIdx.x; i < p.hidden; i += kComputeThreads) {
    const float value = is_row ? row[i] : 0;
    square = fmaf(value, value, square);
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) square += __shfl_xor_sync(~0u, square, offset);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = square;
  ComputeSync();
  square = 0;
#pragma unroll
  for (int i = 0; i < kComputeWarps; ++i) square += partial[i];
  const float factor = rsqrtf(square / static_cast<float>(p.hidden) + p.eps) * kOperandScale<T>;
  for (int i = threadIdx.x; i < p.hidden; i += kComputeThreads) {
    const float value = is_row ? row[i] : 0;
    __stcg(p.residual + i * kTokens + token, value);
    static_cast<T*>(p.normed)[token * p.hidden + i] =
        static_cast<T>(value * factor * p.input_norm[i]);
  }
  if (threadIdx.x == 0) p.squares[token] = square;
}

__device__ __forceinline__ void WritePooled(const Params& p) {
  const int step = static_cast<int>(gridDim.x) * kComputeThreads;
  for (int i = blockIdx.x * kComputeThreads + threadIdx.x; i < p.num_pooled * p.hidden; i += step) {
    const int row = p.pooled_rows[i / p.hidden];
    p.out[i] = __ldcg(p.residual + i % p.hidden * kTokens + row);
  }
}

// The last block to be done with the grid's barriers makes them ready for the next pass.
__device__ __forceinline__ void LeaveGrid(const Params& p) {
  if (threadIdx.x != 0) return;
  __threadfence();
  if (atomicAdd(p.left, 1) + 1 != gridDim.x) return;
  *p.arrived = 0;
  *p.left = 0;
}

template <typename T, typename Weight>
__device__ __forceinline__ void Compute(const Params& p, unsigned char* memory,
                                        const Units* units) {
  using L = Layout<Weight>;
  Multiplier<T, Weight> multiplier(p, memory);
  Begin<T>(p, reinterpret_cast<float*>(memory + L::kPartialOffset));
  ArriveAtGrid(p);
  for (int layer = 0; layer < p.num_layers; ++layer) {
    const bool is_last = layer == p.num_layers - 1;
    const int norm = 2 * layer;
    const auto run = [&](int name, bool has_finish, auto&& finish) {
      const Product& product = p.products[name];
      // Who multiplies waits for x, and so for the barrier before. It must be behind all who arrive
      // at the next.
      if (units[name].begin == units[name].end) ComputeAwaitGrid(p, BarrierBefore(layer, name));
      multiplier.Run(product, layer, units[name], has_finish, finish);
    };

    run(kQkv, false, [](int) {});
    ArriveAtGrid(p);
    Attend<T>(p, memory + L::kXOffset, layer, layer * kLayerBarriers + 1);
    ArriveAtGrid(p);
    run(kOutput, true,
        [&](int tile) { multiplier.NormTile(tile, norm + 1, OfLayer(p, p.mlp_norm, layer)); });
    // Attention was the last to read them.
    ClearShare(p.products[kQkv].sums, p.products[kQkv].tiles * 2 * kBoxRows * kTokens);
    ArriveAtGrid(p);
    run(kGateUp, true, [&](int tile) { multiplier.ActivateTile(tile, norm + 1); });
    ArriveAtGrid(p);
    run(kDown, !is_last, [&](int tile) {
      multiplier.NormTile(tile, norm + 2, OfLayer(p, p.input_norm, layer + 1));
    });
    ArriveAtGrid(p);
  }
  ComputeAwaitGrid(p, p.num_layers * kLayerBarriers);
  WritePooled(p);
  LeaveGrid(p);
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

template <typename T, typename Weight>
__global__ void __launch_bounds__(kThreads, 1) DecoderPassKernel(const __grid_constant__ Params p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using L = Layout<Weight>;
  extern __shared__ __align__(1024) unsigned char decoder_memory[];
  const Rings<Weight> rings = {SharedAddress(decoder_memory)};
  auto* const units = reinterpret_cast<Units*>(decoder_memory + L::kUnitsOffset);
  if (threadIdx.x < kProducts) {
    units[threadIdx.x] = UnitsOf(p.products[threadIdx.x], static_cast<int>(threadIdx.x));
  }
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < L::kWeightStages; ++stage) {
      BarrierInit(rings.weight_full(stage), 1);
      BarrierInit(rings.weight_empty(stage), kComputeWarps);
    }
    for (int stage = 0; stage < kXStages; ++stage) {
      // By each thread of the warp that copies.
      BarrierInit(rings.x_full(stage), 32);
      BarrierInit(rings.x_empty(stage), kComputeWarps);
    }
    BarrierInitFence();
  }
  __syncthreads();
  // Through a shuffle, so that the compiler knows that a warp takes one way: products must not be
  // under divergent control flow.
  const int warp = __shfl_sync(0xffffffff, static_cast<int>(threadIdx.x) / 32, 0);
  if (warp < kComputeWarps) {
    Compute<T, Weight>(p, decoder_memory, units);
  } else if (warp > kComputeWarps) {
    CopyX(p, rings, units, warp - kComputeWarps - 1);
  } else if (threadIdx.x == kComputeThreads) {
    CopyWeights(p, rings, units);
  }
#endif
}

bool IsAligned(const void* data) {
  return data != nullptr && reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

bool IsValid(const DecoderShape& shape) {
  return shape.hidden > 0 && shape.hidden % (2 * kBoxRows) == 0 && shape.hidden <= 1 << 14 &&
         shape.inner > 0 && shape.inner % kBoxRows == 0 && shape.inner <= 1 << 16 &&
         shape.num_layers > 0 && shape.num_layers <= 1 << 10 && shape.num_kv_heads > 0 &&
         shape.num_heads > 0 && shape.num_heads <= 128 &&
         shape.num_heads % shape.num_kv_heads == 0 &&
         (shape.form != DecoderWeightForm::kInt4 || IsInt4Group(shape.int4_group));
}

bool IsValid(const DecoderShape& shape, const DecoderWeights& w, const DecoderTensors& t) {
  const bool has_scales = IsAligned(w.qkv_scales) && IsAligned(w.output_scales) &&
                          IsAligned(w.gate_up_scales) && IsAligned(w.down_scales);
  return (shape.form != DecoderWeightForm::kFp8 || has_scales) && IsAligned(w.input_norm) &&
         IsAligned(w.qkv) && IsAligned(w.query_norm) && IsAligned(w.key_norm) &&
         IsAligned(w.output) && IsAligned(w.mlp_norm) && IsAligned(w.gate_up) &&
         IsAligned(w.down) && w.layer_bytes > 0 && w.layer_bytes % 16 == 0 &&
         IsAligned(t.residual) && t.rows > 0 && t.rows <= kMaxDecoderRows &&
         t.positions != nullptr && t.rope_table != nullptr && t.num_pooled >= 0 &&
         (t.num_pooled == 0 || (t.pooled_rows != nullptr && t.out != nullptr)) &&
         t.workspace != nullptr && reinterpret_cast<uintptr_t>(t.workspace) % 256 == 0;
}

// Arrays one after another. Of a null workspace, offsets.
class Workspace {
 public:
  explicit Workspace(void* base) : base_(reinterpret_cast<uintptr_t>(base)) {}
  template <typename T = void>
  T* Take(int64_t bytes) {
    const uintptr_t at = base_ + bytes_;
    bytes_ += static_cast<size_t>((bytes + 255) / 256 * 256);
    return reinterpret_cast<T*>(at);
  }
  size_t bytes() const { return bytes_; }

 private:
  uintptr_t base_;
  size_t bytes_ = 0;
};

// The products' sizes, and where everything lies. Returns the bytes it takes.
size_t LayOut(const DecoderShape& shape, void* workspace, Params* p) {
  Workspace memory(workspace);
  const auto rows = [&](int64_t columns) { return columns * kTokens; };
  p->arrived = memory.Take<uint32_t>(256);
  p->left = p->arrived + 32;
  p->residual = memory.Take<float>(rows(shape.hidden) * 4);
  p->squares = memory.Take<float>(rows(2 * shape.num_layers) * 4);
  p->normed = memory.Take(rows(shape.hidden) * 2);
  p->attended = memory.Take(rows(shape.query_width()) * 2);
  p->activated = memory.Take(rows(shape.inner) * 2);
  const auto product = [&](ProductName name, const void* x, int64_t tiles, int64_t columns,
                           int64_t tile_step, int64_t group_step) {
    Product& to = p->products[name];
    to.x = x;
    to.tiles = static_cast<int>(tiles);
    to.chunks = static_cast<int>(columns / kChunk);
    to.tile_step = static_cast<int>(tile_step);
    to.group_step = static_cast<int>(group_step);
    to.counters = memory.Take<int32_t>(tiles * 4);
    const bool adds_to_residual = name == kOutput || name == kDown;
    to.sums = adds_to_residual ? p->residual : memory.Take<float>(rows(tiles * 2 * kBoxRows) * 4);
  };
  constexpr int kTileRows = 2 * kBoxRows;
  product(kQkv, p->normed, shape.projection_width() / kTileRows, shape.hidden, kTileRows, kBoxRows);
  product(kOutput, p->attended, shape.hidden / kTileRows, shape.query_width(), kTileRows, kBoxRows);
  // A gate and what it lets through in one tile.
  product(kGateUp, p->normed, shape.inner / kBoxRows, shape.hidden, kBoxRows, shape.inner);
  product(kDown, p->activated, shape.hidden / kTileRows, shape.inner, kTileRows, kBoxRows);
  return memory.bytes();
}

// Null if the driver has none.
EncodeTensorMap Encoder() {
  static const EncodeTensorMap encode = FindEncodeTensorMap();
  return encode;
}

bool EncodeBoxes(const DecoderShape& shape, const void* base, int64_t columns, int64_t rows,
                 int64_t layer_bytes, CUtensorMap* map) {
  const EncodeTensorMap encode = Encoder();
  if (encode == nullptr) return false;
  const bool is_fp8 = shape.form == DecoderWeightForm::kFp8;
  const cuuint64_t dims[3] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows),
                              static_cast<cuuint64_t>(shape.num_layers)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(columns) * (is_fp8 ? 1 : 2),
                                 static_cast<cuuint64_t>(layer_bytes)};
  const cuuint32_t box[3] = {kChunk, kBoxRows, 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  return encode(
             map,
             is_fp8                         ? CU_TENSOR_MAP_DATA_TYPE_UINT8
             : shape.type == HalfType::kF16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                            : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
             3, const_cast<void*>(base), dims, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             is_fp8 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

bool SetWeights(const DecoderShape& shape, const DecoderWeights& w, Params* p) {
  const auto set = [&](ProductName name, const void* weight, const float* scales, int64_t rows) {
    Product& product = p->products[name];
    product.weight = static_cast<const unsigned char*>(weight);
    product.scales = scales;
    return shape.form == DecoderWeightForm::kInt4 ||
           EncodeBoxes(shape, weight, int64_t{product.chunks} * kChunk, rows, w.layer_bytes,
                       &p->weight_maps[name]);
  };
  return set(kQkv, w.qkv, w.qkv_scales, shape.projection_width()) &&
         set(kOutput, w.output, w.output_scales, shape.hidden) &&
         set(kGateUp, w.gate_up, w.gate_up_scales, 2 * shape.inner) &&
         set(kDown, w.down, w.down_scales, shape.hidden);
}

template <typename T, typename Weight>
cudaError_t Launch(const Params& params, int multiprocessors, cudaStream_t stream) {
  const auto kernel = DecoderPassKernel<T, Weight>;
  constexpr int kSharedBytes = Layout<Weight>::kSharedBytes;
  const cudaError_t set =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (set != cudaSuccess) return set;
  // So that all blocks are there at once, or none.
  cudaLaunchAttribute cooperative = {};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(multiprocessors));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = kSharedBytes;
  config.stream = stream;
  config.attrs = &cooperative;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, params);
}

}  // namespace

cudaError_t DecoderPassIsSupported(const DecoderShape& shape, bool* is_supported) {
  *is_supported = false;
  int device = 0;
  int values[3] = {};
  cudaError_t error = cudaGetDevice(&device);
  const cudaDeviceAttr attributes[3] = {cudaDevAttrComputeCapabilityMajor,
                                        cudaDevAttrCooperativeLaunch,
                                        cudaDevAttrMultiProcessorCount};
  for (int i = 0; i < 3 && error == cudaSuccess; ++i) {
    error = cudaDeviceGetAttribute(&values[i], attributes[i], device);
  }
  if (error != cudaSuccess) return error;
  *is_supported = IsValid(shape) && values[0] == 9 && values[1] != 0 &&
                  values[2] >= kMaxDecoderRows && Encoder() != nullptr;
  return cudaSuccess;
}

size_t DecoderWorkspaceBytes(const DecoderShape& shape) {
  Params params = {};
  return LayOut(shape, nullptr, &params);
}

cudaError_t DecoderPass(const DecoderShape& shape, const DecoderWeights& weights,
                        const DecoderTensors& tensors, cudaStream_t stream) {
  if (!IsValid(shape) || !IsValid(shape, weights, tensors)) return cudaErrorInvalidValue;
  bool is_supported = false;
  cudaError_t error = DecoderPassIsSupported(shape, &is_supported);
  if (error != cudaSuccess) return error;
  if (!is_supported) return cudaErrorNotSupported;
  int device = 0;
  int multiprocessors = 0;
  error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;

  Params params = {};
  LayOut(shape, tensors.workspace, &params);
  if (!SetWeights(shape, weights, &params)) return cudaErrorNotSupported;
  params.num_layers = shape.num_layers;
  params.hidden = static_cast<int>(shape.hidden);
  params.num_heads = shape.num_heads;
  params.num_kv_heads = shape.num_kv_heads;
  params.eps = shape.norm_eps;
  params.layer_bytes = weights.layer_bytes;
  params.input_norm = weights.input_norm;
  params.query_norm = weights.query_norm;
  params.key_norm = weights.key_norm;
  params.mlp_norm = weights.mlp_norm;
  params.in_residual = tensors.residual;
  params.rows = tensors.rows;
  params.positions = tensors.positions;
  params.rope_table = tensors.rope_table;
  params.pooled_rows = tensors.pooled_rows;
  params.num_pooled = tensors.num_pooled;
  params.out = tensors.out;

  return WithHalf(shape.type, [&](auto element) {
    using T = decltype(element);
    switch (shape.form) {
      case DecoderWeightForm::kHalf:
        return Launch<T, HalfWeight>(params, multiprocessors, stream);
      case DecoderWeightForm::kFp8:
        return Launch<T, Fp8Weight>(params, multiprocessors, stream);
      case DecoderWeightForm::kInt4:
        break;
    }
    if (shape.int4_group == 32) return Launch<T, Int4Weight<32>>(params, multiprocessors, stream);
    if (shape.int4_group == 64) return Launch<T, Int4Weight<64>>(params, multiprocessors, stream);
    return Launch<T, Int4Weight<128>>(params, multiprocessors, stream);
  });
}

}  // namespace quiver
