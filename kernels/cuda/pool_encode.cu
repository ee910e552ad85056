// Work mapping: one block a vector, which stays in shared memory from pooling to encoding. The
// order of summation depends on `dim` and the vector's own rows alone.
//
// Bound: latency for a last or first token; for a mean the bytes of the rows, of which a block
// reads its own alone.
#include <algorithm>
#include <climits>
#include <cstdint>

#include "kernels/cuda/half.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/pool_encode.h"

namespace quiver {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kMaxDim = 8192;
constexpr int kFactorRows = 64;  // rows whose norms a block holds at once

// Over the block, the same for all threads, in a fixed order.
template <typename T, typename Combine>
__device__ T BlockReduce(T value, Combine combine) {
  __shared__ T partial[kWarps];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value = combine(value, __shfl_xor_sync(~0u, value, offset));
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  T result = partial[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) result = combine(result, partial[i]);
  return result;
}

__device__ __forceinline__ double Add(double a, double b) { return a + b; }

// 1 / sqrt(mean(row^2) + eps), by one warp.
__device__ float NormFactor(const float* row, int dim, float eps) {
  float sum = 0;
  for (int i = 4 * (threadIdx.x % 32); i < dim; i += 128) {
    const float4 value = Load4(row + i);
    sum = fmaf(value.x, value.x, sum);
    sum = fmaf(value.y, value.y, sum);
    sum = fmaf(value.z, value.z, sum);
    sum = fmaf(value.w, value.w, sum);
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
  return 1.0f / sqrtf(sum / static_cast<float>(dim) + eps);
}

// One row, normed, into `pooled` [dim].
__device__ void PoolOne(const PoolTensors& t, const float* row, float* pooled) {
  __shared__ float shared_factor;
  const int dim = static_cast<int>(t.dim);
  if (t.norm_weight != nullptr && threadIdx.x < 32) {
    const float factor = NormFactor(row, dim, t.norm_eps);
    if (threadIdx.x == 0) shared_factor = factor;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < dim; i += kThreads) {
    pooled[i] = t.norm_weight == nullptr ? row[i] : row[i] * shared_factor * t.norm_weight[i];
  }
}

// The mean of rows, each normed first, into `pooled` [dim]. Threads are dealt to quads of columns;
// where they suffice for several turns, each turn has its own rows, and the turns' sums, in `sums`,
// are added in order.
__device__ void PoolMean(const PoolTensors& t, const float* rows, int num_rows, double* sums,
                         float* pooled) {
  __shared__ float factors[kFactorRows];
  const int dim = static_cast<int>(t.dim);
  const int quads = dim / 4;
  const int turns = max(1, kThreads / quads);
  const int turn = quads <= kThreads ? static_cast<int>(threadIdx.x) / quads : 0;
  const bool has_norm = t.norm_weight != nullptr;

  // One round, unless there are more quads than threads.
  for (int base = 0; base < quads; base += kThreads) {
    const int quad = quads <= kThreads ? static_cast<int>(threadIdx.x) % quads
                                       : base + static_cast<int>(threadIdx.x);
    const bool takes_part = turn < turns && quad < quads;
    double sum[4] = {};
    for (int first = 0; first < num_rows; first += kFactorRows) {
      const int count = min(kFactorRows, num_rows - first);
      if (has_norm) {
        __syncthreads();
        for (int r = threadIdx.x / 32; r < count; r += kWarps) {
          const float factor = NormFactor(rows + (first + r) * t.hidden_stride, dim, t.norm_eps);
          if (threadIdx.x % 32 == 0) factors[r] = factor;
        }
        __syncthreads();
      }
      if (!takes_part) continue;
      const float4 weight =
          has_norm ? Load4(t.norm_weight + 4 * quad) : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
      // kFactorRows need not be a multiple of `turns`: a turn's rows are counted from the first.
#pragma unroll 4
      for (int r = (turn + turns - first % turns) % turns; r < count; r += turns) {
        const float4 value = Load4(rows + (first + r) * t.hidden_stride + 4 * quad);
        const float factor = has_norm ? factors[r] : 1.0f;
        sum[0] += value.x * factor * weight.x;
        sum[1] += value.y * factor * weight.y;
        sum[2] += value.z * factor * weight.z;
        sum[3] += value.w * factor * weight.w;
      }
    }
    if (turns == 1) {
      if (takes_part) {
        for (int i = 0; i < 4; ++i) pooled[4 * quad + i] = static_cast<float>(sum[i] / num_rows);
      }
      continue;
    }
    if (takes_part) {
      for (int i = 0; i < 4; ++i) sums[turn * dim + 4 * quad + i] = sum[i];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < dim; i += kThreads) {
      double total = 0;
      for (int j = 0; j < turns; ++j) total += sums[j * dim + i];
      pooled[i] = static_cast<float>(total / num_rows);
    }
  }
}

__device__ cpu::VectorStatus Finish(float* vector, int dim, bool normalize) {
  // The squares of floats neither overflow nor vanish in double.
  double square_sum = 0;
  for (int i = threadIdx.x; i < dim; i += kThreads) {
    square_sum += static_cast<double>(vector[i]) * static_cast<double>(vector[i]);
  }
  square_sum = BlockReduce(square_sum, Add);
  if (!isfinite(square_sum)) return cpu::VectorStatus::kNotFinite;
  if (square_sum == 0.0) return cpu::VectorStatus::kZeroNorm;
  if (normalize) {
    const double factor = 1.0 / sqrt(square_sum);
    for (int i = threadIdx.x; i < dim; i += kThreads) {
      vector[i] = static_cast<float>(vector[i] * factor);
    }
    __syncthreads();
  }
  return cpu::VectorStatus::kOk;
}

__device__ __forceinline__ uint16_t HalfBits(float value, bool is_f16) {
  return is_f16 ? __half_as_ushort(__float2half_rn(value))
                : __bfloat16_as_ushort(__float2bfloat16_rn(value));
}

__device__ PoolResult Encode(cpu::Encoding encoding, const float* vector, int dim,
                             unsigned char* out) {
  PoolResult result;
  switch (encoding) {
    case cpu::Encoding::kFloat32:
      for (int i = threadIdx.x; i < dim; i += kThreads) {
        reinterpret_cast<float*>(out)[i] = vector[i];
      }
      break;
    case cpu::Encoding::kFloat16:
    case cpu::Encoding::kBfloat16: {
      const bool is_f16 = encoding == cpu::Encoding::kFloat16;
      // Values at or above these round to infinity.
      const float limit = is_f16 ? 65520.0f : 0x1.ffp127f;
      int overflows = 0;
      for (int i = threadIdx.x; i < dim; i += kThreads) {
        reinterpret_cast<uint16_t*>(out)[i] = HalfBits(vector[i], is_f16);
        overflows |= !(fabsf(vector[i]) < limit);
      }
      if (__syncthreads_or(overflows) != 0) result.status = cpu::VectorStatus::kNotFinite;
      break;
    }
    case cpu::Encoding::kInt8: {
      float max = 0;
      for (int i = threadIdx.x; i < dim; i += kThreads) max = fmaxf(max, fabsf(vector[i]));
      max = BlockReduce(max, [](float a, float b) { return fmaxf(a, b); });
      for (int i = threadIdx.x; i < dim; i += kThreads) {
        const double element = rint(static_cast<double>(vector[i]) / max * 127.0);
        out[i] = static_cast<unsigned char>(static_cast<int8_t>(element));
      }
      result.scale = max / 127.0f;
      break;
    }
    case cpu::Encoding::kBinary:
      for (int byte = threadIdx.x; byte < (dim + 7) / 8; byte += kThreads) {
        unsigned bits = 0;
        for (int i = 0; i < 8 && 8 * byte + i < dim; ++i) {
          if (vector[8 * byte + i] > 0.0f) bits |= 0x80u >> i;
        }
        out[byte] = static_cast<unsigned char>(bits);
      }
      break;
  }
  return result;
}

template <cpu::PoolKind kKind>
__global__ void __launch_bounds__(kThreads) PoolEncodeKernel(PoolTensors t) {
  extern __shared__ double shared[];
  WaitForEarlierKernels();
  const PoolItem item = t.items[blockIdx.x];
  if (item.num_rows <= 0) return;
  const float* rows = t.hidden + item.first_row * t.hidden_stride;
  float* vector = reinterpret_cast<float*>(shared);
  if constexpr (kKind == cpu::PoolKind::kMean) {
    PoolMean(t, rows, item.num_rows, shared + (t.dim + 1) / 2, vector);
  } else {
    const int row = kKind == cpu::PoolKind::kCls ? 0 : item.num_rows - 1;
    PoolOne(t, rows + row * t.hidden_stride, vector);
  }
  __syncthreads();
  PoolResult result;
  result.status = Finish(vector, item.dimensions, item.normalize);
  if (result.status == cpu::VectorStatus::kOk) {
    result = Encode(item.encoding, vector, item.dimensions,
                    static_cast<unsigned char*>(t.out) + item.out_offset);
  }
  if (threadIdx.x == 0) t.results[blockIdx.x] = result;
}

}  // namespace

cudaError_t PoolEncode(cpu::PoolKind kind, const PoolTensors& tensors, cudaStream_t stream) {
  const auto is_aligned = [](const void* data) {
    return data != nullptr && reinterpret_cast<uintptr_t>(data) % 16 == 0;
  };
  if (!is_aligned(tensors.hidden) || !is_aligned(tensors.out) || tensors.dim <= 0 ||
      tensors.dim > kMaxDim || tensors.dim % 4 != 0 || tensors.hidden_stride % 4 != 0 ||
      tensors.hidden_stride < tensors.dim ||
      (tensors.norm_weight != nullptr && !is_aligned(tensors.norm_weight)) ||
      tensors.items == nullptr || tensors.results == nullptr) {
    return cudaErrorInvalidValue;
  }
  if (tensors.num_items <= 0) return cudaSuccess;
  const size_t dim = static_cast<size_t>(tensors.dim);
  size_t bytes = dim * sizeof(float);
  // The sums of a mean's turns, of four columns a thread, where there are several.
  if (kind == cpu::PoolKind::kMean && dim / 4 <= kThreads / 2) {
    bytes += sizeof(double) + 4 * kThreads * sizeof(double);
  }
  const auto kernel = kind == cpu::PoolKind::kMean  ? PoolEncodeKernel<cpu::PoolKind::kMean>
                      : kind == cpu::PoolKind::kCls ? PoolEncodeKernel<cpu::PoolKind::kCls>
                                                    : PoolEncodeKernel<cpu::PoolKind::kLastToken>;
  return Launch(kernel, static_cast<unsigned>(tensors.num_items), kThreads, bytes, stream, tensors);
}

}  // namespace quiver
