// Work mapping: a block a unit, thread i of it with the 32 bytes that are thread i's of the unit;
// for rows' scales a block a panel. Bound: bytes of the matrix, and of what it is made of or
// expanded to.
#include <cstdint>
#include <type_traits>

#include "kernels/cuda/fp8.cuh"
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/int4.cuh"
#include "kernels/cuda/int4_matrix.h"
#include "kernels/cuda/launch.cuh"

namespace quiver {
namespace {

constexpr int kThreads = 128;
constexpr int kHalfBytes = kInt4NibbleBytes / 2;
constexpr int kHalfColumns = kInt4UnitColumns / 2;

struct Unit {
  __device__ Unit(int64_t k, int64_t unit_bytes) {
    const auto units = static_cast<unsigned>((k + kInt4UnitColumns - 1) / kInt4UnitColumns);
    first_row = static_cast<int64_t>(blockIdx.x / units) * kInt4PanelRows;
    first_column = static_cast<int64_t>(blockIdx.x % units) * kInt4UnitColumns;
    offset = static_cast<int64_t>(blockIdx.x) * unit_bytes;
  }
  int64_t first_row;
  int64_t first_column;
  int64_t offset;
};

// Within a panel, and within a word's 16 columns, of the thread's nibble `i`.
__device__ __forceinline__ int RowOf(int i) {
  return static_cast<int>(threadIdx.x) / 32 * 16 + static_cast<int>(threadIdx.x) % 32 / 4 +
         i % 2 * 8;
}
__device__ __forceinline__ int ColumnOf(int i) {
  return static_cast<int>(threadIdx.x) % 4 * 2 + i / 4 + i / 2 % 2 * 8;
}

template <typename T>
__device__ __forceinline__ uint32_t HalfBits(float value) {
  return Narrow<T>(value, 0) & 0xffff;
}

template <typename T>
__device__ __forceinline__ uint32_t ScaleWord(float scale, float zero) {
  return HalfBits<T>(scale) | HalfBits<T>(int4::kBase<T> + zero) << 16;
}

// The unit's bytes from nibble(row, column) and scale_word(row, group), both of the matrix.
template <typename Nibble, typename Word>
__device__ __forceinline__ void WriteUnit(const Unit& unit, int64_t n, int64_t k, int group,
                                          unsigned char* to, Nibble nibble, Word scale_word) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int half = 0; half < 2; ++half) {
    uint32_t words[4] = {};
    for (int j = 0; j < 4; ++j) {
      for (int i = 0; i < 8; ++i) {
        const int64_t row = unit.first_row + RowOf(i);
        const int64_t column = unit.first_column + half * kHalfColumns + 16 * j + ColumnOf(i);
        if (row < n && column < k) words[j] |= nibble(row, column) << (4 * i);
      }
    }
    reinterpret_cast<uint4*>(to + half * kHalfBytes)[thread] =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
  auto* scales = reinterpret_cast<uint32_t*>(to + kInt4NibbleBytes);
  for (int i = thread; i < kInt4UnitColumns / group * kInt4PanelRows; i += kThreads) {
    const int64_t row = unit.first_row + i % kInt4PanelRows;
    const int64_t column = unit.first_column + static_cast<int64_t>(i / kInt4PanelRows) * group;
    // Nothing times zero is zero, whatever its offset.
    scales[i] = row < n && column < k ? scale_word(row, column / group) : 0;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    PackKernel(Int4Source source, int64_t n, int64_t k, int group, int64_t unit_bytes,
               unsigned char* out) {
  const Unit unit(k, unit_bytes);
  const auto nibble = [&](int64_t row, int64_t column) {
    const uint32_t byte = source.values[(row * k + column) / 2];
    return column % 2 == 0 ? byte & 15 : byte >> 4;
  };
  const auto scale_word = [&](int64_t row, int64_t index) {
    const int64_t place = row * source.groups + (source.groups == 1 ? 0 : index);
    return ScaleWord<T>(source.scales[place], source.zeros[place]);
  };
  WriteUnit(unit, n, k, group, out + unit.offset, nibble, scale_word);
}

// The finalizer of SplitMix64.
__device__ __forceinline__ uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    RandomKernel(float range, uint64_t seed, int64_t n, int64_t k, int group, int64_t unit_bytes,
                 unsigned char* out) {
  const Unit unit(k, unit_bytes);
  const uint64_t stream = Mix(seed);
  const auto nibble = [&](int64_t row, int64_t column) {
    return static_cast<uint32_t>(Mix(stream ^ static_cast<uint64_t>(row * k + column)) >> 60);
  };
  // Of 16 steps, from -7 or -8 on: scales and zeros differ from group to group.
  const auto scale_word = [&](int64_t row, int64_t index) {
    const uint64_t bits = Mix(~stream ^ static_cast<uint64_t>(row * k + index));
    const float unit_value = static_cast<float>(bits >> 40) * (1.0f / (1 << 24));
    return ScaleWord<T>(range / 8 * (0.75f + 0.5f * unit_value),
                        static_cast<float>(7 + (bits & 1)));
  };
  WriteUnit(unit, n, k, group, out + unit.offset, nibble, scale_word);
}

template <int kGroup>
constexpr int64_t kUnitBytes = Int4UnitBytes(kGroup);

// Where the 16-bit elements of a row-major matrix without gaps go.
template <typename T>
struct HalfSink {
  using Element = T;
  using Pair = uint32_t;
  struct Rows {
    __device__ Rows(const HalfSink&, int64_t, int64_t) {}
  };

  T* out;
  int64_t stride;

  // Of the upper of a thread's two rows, or of the one eight below it.
  __device__ static Pair Of(const Rows&, bool, uint32_t pair) { return pair; }
};

// Or, with the scales of its rows, its codes in FP8.
template <typename T>
struct Fp8Sink {
  using Element = unsigned char;
  using Pair = uint16_t;
  struct Rows {
    __device__ Rows(const Fp8Sink& sink, int64_t row, int64_t rows)
        : low(row < rows ? 1.0f / sink.scales[row] : 0),
          high(row + 8 < rows ? 1.0f / sink.scales[row + 8] : 0) {}
    float low;
    float high;
  };

  unsigned char* out;
  int64_t stride;
  const float* scales;

  __device__ static Pair Of(const Rows& rows, bool is_low, uint32_t pair) {
    const float2 value = Widen<T>(pair);
    const float inverse = is_low ? rows.low : rows.high;
    return static_cast<Pair>(fp8::Codes2(value.x * inverse, value.y * inverse));
  }
};

template <typename T, int kGroup, typename Sink>
__global__ void __launch_bounds__(kThreads)
    ExpandKernel(const unsigned char* data, int64_t k, int64_t rows, Sink sink) {
  using Element = typename Sink::Element;
  // 16 bytes of elements.
  constexpr int kPiece = 16 / static_cast<int>(sizeof(Element));
  // Elements from one row of the panel to the next, with a gap that keeps a warp's stores of two
  // elements and its loads of a piece from bank conflicts.
  constexpr int kPitch = kInt4UnitColumns + kPiece;
  __shared__ __align__(16) Element panel[kInt4PanelRows * kPitch];
  const Unit unit(k, kUnitBytes<kGroup>);
  const int thread = static_cast<int>(threadIdx.x);
  const unsigned char* from = data + unit.offset;
  const auto* scales = reinterpret_cast<const uint32_t*>(from + kInt4NibbleBytes);
  const int row = RowOf(0);
  uint4 words[2];
  uint32_t low[kInt4UnitColumns / kGroup];
  uint32_t high[kInt4UnitColumns / kGroup];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    words[half] = __ldcs(reinterpret_cast<const uint4*>(from + half * kHalfBytes) + thread);
  }
#pragma unroll
  for (int g = 0; g < kInt4UnitColumns / kGroup; ++g) {
    low[g] = __ldcs(scales + g * kInt4PanelRows + row);
    high[g] = __ldcs(scales + g * kInt4PanelRows + row + 8);
  }
  // Without letting the next kernel begin: one that multiplies by what is written here may read it
  // before it waits.
  AwaitEarlierKernels();
  const typename Sink::Rows sink_rows(sink, unit.first_row + row, rows);
#pragma unroll
  for (int step = 0; step < kInt4UnitColumns / 16; ++step) {
    const uint4& four = words[step / 4];
    const uint32_t word = step % 4 == 0   ? four.x
                          : step % 4 == 1 ? four.y
                          : step % 4 == 2 ? four.z
                                          : four.w;
    const int g = step * 16 / kGroup;
    uint32_t pairs[4];
    int4::Dequantize<T>(word, int4::RowScale<T>(low[g]), int4::RowScale<T>(high[g]), pairs);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      *reinterpret_cast<typename Sink::Pair*>(panel + RowOf(i) * kPitch + 16 * step + ColumnOf(i)) =
          Sink::Of(sink_rows, i % 2 == 0, pairs[i]);
    }
  }
  __syncthreads();
  constexpr int kPieces = kInt4UnitColumns / kPiece;
  const int piece = thread % kPieces;
  const int64_t column = unit.first_column + kPiece * piece;
  if (column < k) {
    for (int r = thread / kPieces; r < kInt4PanelRows && unit.first_row + r < rows;
         r += kThreads / kPieces) {
      *reinterpret_cast<uint4*>(sink.out + (unit.first_row + r) * sink.stride + column) =
          *reinterpret_cast<const uint4*>(panel + r * kPitch + kPiece * piece);
    }
  }
  // It begins once all blocks have ended, by when this has arrived.
  __threadfence();
}

template <typename T, int kGroup>
__global__ void __launch_bounds__(kThreads)
    RowScalesKernel(const unsigned char* data, int64_t n, int64_t k, float* scales) {
  __shared__ float most[kThreads / kInt4PanelRows][kInt4PanelRows];
  const int64_t units = (k + kInt4UnitColumns - 1) / kInt4UnitColumns;
  const int row = static_cast<int>(threadIdx.x) % kInt4PanelRows;
  const int lane = static_cast<int>(threadIdx.x) / kInt4PanelRows;
  const unsigned char* panel = data + blockIdx.x * units * kUnitBytes<kGroup> + kInt4NibbleBytes;
  float largest = 0;
  for (int64_t u = lane; u < units; u += kThreads / kInt4PanelRows) {
    const auto* words = reinterpret_cast<const uint32_t*>(panel + u * kUnitBytes<kGroup>);
    for (int g = 0; g < kInt4UnitColumns / kGroup; ++g) {
      const uint32_t word = words[g * kInt4PanelRows + row];
      // A group beyond the columns is all zero.
      if (word == 0) continue;
      const float2 pair = Widen<T>(word);
      const float zero = pair.y - int4::kBase<T>;
      largest = fp8::LargerMagnitude(largest, pair.x * fmaxf(zero, 15 - zero));
    }
  }
  most[lane][row] = largest;
  __syncthreads();
  if (lane > 0) return;
  for (const auto& others : most) largest = fp8::LargerMagnitude(largest, others[row]);
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kInt4PanelRows + row;
  if (at < n) scales[at] = fp8::Scale(largest).value;
}

bool IsValid(const Int4Matrix& m) {
  return m.data != nullptr && reinterpret_cast<uintptr_t>(m.data) % 16 == 0 && m.n > 0 && m.k > 0 &&
         m.k % 2 == 0 && IsInt4Group(m.group) &&
         Int4Panels(m.n) * Int4Units(m.k) < (int64_t{1} << 31);
}

unsigned Units(int64_t n, int64_t k) { return static_cast<unsigned>(Int4Panels(n) * Int4Units(k)); }

bool AreRowsOf(const Int4Matrix& matrix, int64_t first_row, int64_t rows) {
  return IsValid(matrix) && first_row >= 0 && first_row % kInt4PanelRows == 0 && rows > 0 &&
         first_row + rows <= matrix.n;
}

// Calls launch() with the group as a constant.
template <typename Launch>
cudaError_t WithGroup(int group, const Launch& launch) {
  if (group == 32) return launch(std::integral_constant<int, 32>());
  if (group == 64) return launch(std::integral_constant<int, 64>());
  return launch(std::integral_constant<int, 128>());
}

template <typename T, typename Sink>
cudaError_t Expand(const Int4Matrix& matrix, int64_t first_row, int64_t rows, const Sink& sink,
                   cudaStream_t stream) {
  const unsigned char* data =
      static_cast<const unsigned char*>(matrix.data) +
      first_row / kInt4PanelRows * Int4Units(matrix.k) * Int4UnitBytes(matrix.group);
  const auto launch = [&](auto kernel) {
    return Launch(kernel, dim3(Units(rows, matrix.k)), kThreads, 0, stream, data, matrix.k, rows,
                  sink);
  };
  return WithGroup(matrix.group,
                   [&](auto group) { return launch(ExpandKernel<T, group(), Sink>); });
}

}  // namespace

cudaError_t PackInt4(const Int4Source& source, const Int4Matrix& matrix, cudaStream_t stream) {
  const int64_t groups = (matrix.k + matrix.group - 1) / (matrix.group > 0 ? matrix.group : 1);
  if (!IsValid(matrix) || source.values == nullptr || source.zeros == nullptr ||
      source.scales == nullptr || (source.groups != 1 && source.groups != groups)) {
    return cudaErrorInvalidValue;
  }
  return WithHalf(matrix.type, [&](auto element) {
    PackKernel<decltype(element)><<<Units(matrix.n, matrix.k), kThreads, 0, stream>>>(
        source, matrix.n, matrix.k, matrix.group, Int4UnitBytes(matrix.group),
        static_cast<unsigned char*>(const_cast<void*>(matrix.data)));
    return cudaGetLastError();
  });
}

cudaError_t RandomInt4(float range, uint64_t seed, const Int4Matrix& matrix, cudaStream_t stream) {
  if (!IsValid(matrix)) return cudaErrorInvalidValue;
  return WithHalf(matrix.type, [&](auto element) {
    RandomKernel<decltype(element)><<<Units(matrix.n, matrix.k), kThreads, 0, stream>>>(
        range, seed, matrix.n, matrix.k, matrix.group, Int4UnitBytes(matrix.group),
        static_cast<unsigned char*>(const_cast<void*>(matrix.data)));
    return cudaGetLastError();
  });
}

cudaError_t Int4RowScales(const Int4Matrix& matrix, float* scales, cudaStream_t stream) {
  if (!IsValid(matrix) || scales == nullptr) return cudaErrorInvalidValue;
  return WithHalf(matrix.type, [&](auto element) {
    return WithGroup(matrix.group, [&](auto group) {
      RowScalesKernel<decltype(element), group()>
          <<<static_cast<unsigned>(Int4Panels(matrix.n)), kThreads, 0, stream>>>(
              static_cast<const unsigned char*>(matrix.data), matrix.n, matrix.k, scales);
      return cudaGetLastError();
    });
  });
}

cudaError_t ExpandInt4(const Int4Matrix& matrix, int64_t first_row, int64_t rows, void* out,
                       cudaStream_t stream) {
  if (!AreRowsOf(matrix, first_row, rows) || !IsVectorizable(out, matrix.k, matrix.k)) {
    return cudaErrorInvalidValue;
  }
  return WithHalf(matrix.type, [&](auto element) {
    using T = decltype(element);
    return Expand<T>(matrix, first_row, rows, HalfSink<T>{static_cast<T*>(out), matrix.k}, stream);
  });
}

cudaError_t ExpandInt4ToFp8(const Int4Matrix& matrix, int64_t first_row, int64_t rows,
                            const Fp8Rows& out, cudaStream_t stream) {
  if (!AreRowsOf(matrix, first_row, rows) || matrix.k % 16 != 0 || out.stride % 16 != 0 ||
      !IsVectorizable(out.codes, out.stride, matrix.k) || out.scales == nullptr) {
    return cudaErrorInvalidValue;
  }
  return WithHalf(matrix.type, [&](auto element) {
    using T = decltype(element);
    const Fp8Sink<T> sink = {static_cast<unsigned char*>(out.codes), out.stride, out.scales};
    return Expand<T>(matrix, first_row, rows, sink, stream);
  });
}

}  // namespace quiver
