// Attention of DecoderPass()'s kernel, from a projection's sums to the next product's operand.
//
// Work mapping: a block takes eight queries of a head, with all keys that there are. A lane takes a
// token of the keys and values, and a warp some features of them, for the norms and rotations; then
// mma.sync multiplies.
#ifndef QUIVER_KERNELS_CUDA_DECODER_ATTENTION_CUH_
#define QUIVER_KERNELS_CUDA_DECODER_ATTENTION_CUH_

#include <cstdint>

#include "kernels/cuda/decoder_device.cuh"

namespace quiver::decoder {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int kQueries = 8;
// Elements from row to row, so that neither rows nor fragments meet bank conflicts.
constexpr int kHeadPitch = kHeadDim + 8;
constexpr int kTokenPitch = kTokens + 8;

template <typename T>
struct AttentionMemory {
  T keys[kTokens * kHeadPitch];
  T values[kHeadDim * kTokenPitch];  // transposed
  T queries[kQueries * kHeadPitch];
  T weights[kQueries * kTokenPitch];
  float scores[kQueries * kTokens];
  float key_squares[kComputeWarps * kTokens];
  float query_squares[kComputeWarps * kQueries];
  float totals[kQueries];
  uint32_t bad_tokens[kComputeWarps];
};
static_assert(sizeof(AttentionMemory<__half>) <= kXStages * kXBytes);

// d += a b of 8 (of 16) x 16 and 16 x 8; each operand's pairs from `a` and `b` on.
template <typename T>
__device__ __forceinline__ void MultiplyFragments(float (&d)[4], const T* a, const T* b) {
  const uint32_t a0 = *reinterpret_cast<const uint32_t*>(a);
  const uint32_t a2 = *reinterpret_cast<const uint32_t*>(a + 8);
  const uint32_t b0 = *reinterpret_cast<const uint32_t*>(b);
  const uint32_t b1 = *reinterpret_cast<const uint32_t*>(b + 8);
#define QUIVER_MMA(TYPE)                                                              \
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE                 \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %5}, {%7, %8}, {%0, %1, %2, %3};" \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                       \
               : "r"(a0), "r"(0), "r"(a2), "r"(b0), "r"(b1))
  if constexpr (std::is_same_v<T, __half>) {
    QUIVER_MMA("f16");
  } else {
    QUIVER_MMA("bf16");
  }
#undef QUIVER_MMA
}

template <int kCount>
__device__ __forceinline__ void LoadVector(const float* from, float (&to)[kCount]) {
  using Vector = std::conditional_t<kCount % 4 == 0, float4, float2>;
  constexpr int kEach = sizeof(Vector) / sizeof(float);
#pragma unroll
  for (int i = 0; i < kCount / kEach; ++i) {
    reinterpret_cast<Vector*>(to)[i] = __ldg(reinterpret_cast<const Vector*>(from) + i);
  }
}

// Some pairs of a head's features, i and kHalfHead + i each, of one token.
template <int kPairs>
struct HeadPart {
  // What it is normed and rotated by.
  __device__ __forceinline__ void Prepare(const float* norm_weight, const float* angles,
                                          int first) {
    LoadVector(norm_weight + first, low_weight);
    LoadVector(norm_weight + kHalfHead + first, high_weight);
    LoadVector(angles + first, cosine);
    LoadVector(angles + kHalfHead + first, sine);
  }
  __device__ __forceinline__ void Load(const float* sums, int first, int token) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      low[i] = __ldcg(sums + (first + i) * kTokens + token);
      high[i] = __ldcg(sums + (kHalfHead + first + i) * kTokens + token);
    }
  }
  __device__ __forceinline__ void Scale(float factor) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      low[i] *= factor;
      high[i] *= factor;
    }
  }
  __device__ __forceinline__ float Square() const {
    float square = 0;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      square = fmaf(low[i], low[i], fmaf(high[i], high[i], square));
    }
    return square;
  }
  __device__ __forceinline__ void NormAndRotate(float square, float eps) {
    const float factor = rsqrtf(square / kHeadDim + eps);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const float x = low[i] * factor * low_weight[i];
      const float y = high[i] * factor * high_weight[i];
      low[i] = x * cosine[i] - y * sine[i];
      high[i] = y * cosine[i] + x * sine[i];
    }
  }
  template <typename T>
  __device__ __forceinline__ void Store(T* to, int first) const {
#pragma unroll
    for (int i = 0; i < kPairs; i += 2) {
      *reinterpret_cast<uint32_t*>(to + first + i) = Narrow<T>(low[i], low[i + 1]);
      *reinterpret_cast<uint32_t*>(to + kHalfHead + first + i) = Narrow<T>(high[i], high[i + 1]);
    }
  }

  float low_weight[kPairs];
  float high_weight[kPairs];
  float cosine[kPairs];
  float sine[kPairs];
  float low[kPairs];
  float high[kPairs];
};

// Of queries [8 * group, 8 * group + 8) of `head`. `await` returns when the sums are there.
template <typename T, typename Await>
__device__ __forceinline__ void AttendGroup(const Params& p, AttentionMemory<T>* m, int layer,
                                            int head, int group, Await&& await) {
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int query = lane % kQueries;
  const int query_first = warp * 8 + lane / kQueries * 2;
  const int query_token = group * kQueries + query;
  const int position = lane < p.rows ? p.positions[lane] : 0;
  const int query_position = __shfl_sync(~0u, position, query_token);
  HeadPart<8> key;
  HeadPart<2> part;
  key.Prepare(OfLayer(p, p.key_norm, layer), p.rope_table + position * kHeadDim, warp * 8);
  part.Prepare(OfLayer(p, p.query_norm, layer), p.rope_table + query_position * kHeadDim,
               query_first);
  await();

  constexpr int kHeadSums = kHeadDim * kTokens;
  const int kv_head = head / (p.num_heads / p.num_kv_heads);
  const float* const queries = p.products[kQkv].sums;
  const float* const keys = queries + p.num_heads * kHeadSums;
  const float* const values = keys + p.num_kv_heads * kHeadSums;
  float value[16];
  key.Load(keys + kv_head * kHeadSums, warp * 8, lane);
  part.Load(queries + head * kHeadSums, query_first, query_token);
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    value[i] = __ldcg(values + kv_head * kHeadSums + (warp * 16 + i) * kTokens + lane);
  }
  const float factor = SumsFactor<T>(p, 2 * layer, lane);
  key.Scale(factor);
  part.Scale(__shfl_sync(~0u, factor, query_token));

  m->key_squares[warp * kTokens + lane] = key.Square();
  float square = part.Square();
  square += __shfl_xor_sync(~0u, square, 8);
  square += __shfl_xor_sync(~0u, square, 16);
  if (lane < kQueries) m->query_squares[warp * kQueries + lane] = square;
  // A weight of 0 does not keep out what is not finite; those who may look at it become NaN by
  // their scores.
  bool is_bad = false;
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    T narrow = static_cast<T>(value[i] * factor);
    if (!isfinite(static_cast<float>(narrow))) {
      is_bad = true;
      narrow = static_cast<T>(0.0f);
    }
    m->values[(warp * 16 + i) * kTokenPitch + lane] = narrow;
  }
  const uint32_t bad = __ballot_sync(~0u, is_bad);
  if (lane == 0) m->bad_tokens[warp] = bad;
  ComputeSync();

  float key_square = 0;
  float query_square = 0;
#pragma unroll
  for (int i = 0; i < kComputeWarps; ++i) {
    key_square += m->key_squares[i * kTokens + lane];
    query_square += m->query_squares[i * kQueries + query];
  }
  key.NormAndRotate(key_square, p.eps);
  key.Store(m->keys + lane * kHeadPitch, warp * 8);
  part.NormAndRotate(query_square, p.eps);
  part.Store(m->queries + query * kHeadPitch, query_first);
  ComputeSync();

  // Of fragments.
  const int row = lane / 4;
  const int column = lane % 4 * 2;
  if (warp < kTokens / 8) {
    // Two sums, so that one product does not wait for the one before.
    float score[2][4] = {};
#pragma unroll
    for (int k = 0; k < kHeadDim; k += 16) {
      MultiplyFragments(score[k / 16 % 2], m->queries + row * kHeadPitch + k + column,
                        m->keys + (warp * 8 + row) * kHeadPitch + k + column);
    }
    *reinterpret_cast<float2*>(m->scores + row * kTokens + warp * 8 + column) =
        make_float2(score[0][0] + score[1][0], score[0][1] + score[1][1]);
  }
  ComputeSync();

  {
    const int token = group * kQueries + warp;
    const int first = token - __shfl_sync(~0u, position, token);
    uint32_t bad_tokens = 0;
#pragma unroll
    for (int i = 0; i < kComputeWarps; ++i) bad_tokens |= m->bad_tokens[i];
    float score = -INFINITY;
    if (lane >= first && lane <= token) {
      score = m->scores[warp * kTokens + lane] * 0.08838834764831845f;  // 1 / sqrt(kHeadDim)
      if (bad_tokens >> lane & 1) score = NAN;
    }
    float most = score;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      most = fmaxf(most, __shfl_xor_sync(~0u, most, offset));
    }
    const float weight = __expf(score - most);
    float total = weight;
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) total += __shfl_xor_sync(~0u, total, offset);
    m->weights[warp * kTokenPitch + lane] = static_cast<T>(weight);
    if (lane == 0) m->totals[warp] = total;
  }
  ComputeSync();

  const float inverse = 1.0f / m->totals[row];
  T* out = static_cast<T*>(p.attended) +
           static_cast<int64_t>(group * kQueries + row) * p.num_heads * kHeadDim + head * kHeadDim;
#pragma unroll
  for (int feature = warp * 16; feature < warp * 16 + 16; feature += 8) {
    float sum[4] = {};
#pragma unroll
    for (int k = 0; k < kTokens; k += 16) {
      MultiplyFragments(sum, m->weights + row * kTokenPitch + k + column,
                        m->values + (feature + row) * kTokenPitch + k + column);
    }
    *reinterpret_cast<uint32_t*>(out + feature + column) =
        Narrow<T>(sum[0] * inverse, sum[1] * inverse);
  }
  ComputeSync();
}

// After the grid's barrier `number`. `memory` is that of the ring of x, in which nothing is under
// way until the one after.
template <typename T>
__device__ __forceinline__ void Attend(const Params& p, unsigned char* memory, int layer,
                                       int number) {
  auto* m = reinterpret_cast<AttentionMemory<T>*>(memory);
  const int groups = (p.rows + kQueries - 1) / kQueries;
  const int count = p.num_heads * groups;
  bool is_waiting = true;
  const auto await = [&] {
    if (is_waiting) ComputeAwaitGrid(p, number);
    is_waiting = false;
  };
  for (int i = blockIdx.x; i < count; i += gridDim.x) {
    AttendGroup(p, m, layer, i / groups, i % groups, await);
  }
  await();
}

#endif  // __CUDA_ARCH_FEAT_SM90_ALL

}  // namespace quiver::decoder

#endif  // QUIVER_KERNELS_CUDA_DECODER_ATTENTION_CUH_
