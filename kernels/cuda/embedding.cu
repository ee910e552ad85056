// Work mapping: a thread takes four neighbouring elements of four rows, so that it has four of the
// first table's entries under way; a block takes 128 threads' elements of the same rows.
//
// Bound: bytes, of the tables' rows and of what is written.
#include <climits>
#include <cstdint>

#include "kernels/cuda/embedding.h"
#include "kernels/cuda/half.cuh"
#include "kernels/cuda/launch.cuh"

namespace quiver {
namespace {

constexpr int kThreads = 128;
constexpr int kRowsPerThread = 4;

__device__ float4 LoadEntry(const DeviceTable& table, int64_t element) {
  switch (table.type) {
    case cpu::StoredType::kF16:
      return Load4(static_cast<const __half*>(table.data) + element);
    case cpu::StoredType::kBF16:
      return Load4(static_cast<const __nv_bfloat16*>(table.data) + element);
    default:
      return Load4(static_cast<const float*>(table.data) + element);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    EmbedKernel(const T* tokens, DeviceTable type, DeviceTable position, const int32_t* ids,
                const int32_t* positions, int64_t rows, int dim, float* out, int64_t out_stride) {
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kRowsPerThread;
  const int column = 4 * static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  WaitForEarlierKernels();
  if (column >= dim) return;
  int64_t id[kRowsPerThread];
#pragma unroll
  for (int j = 0; j < kRowsPerThread; ++j) id[j] = ids[min(first_row + j, rows - 1)];
  float4 sum[kRowsPerThread];
#pragma unroll
  for (int j = 0; j < kRowsPerThread; ++j) sum[j] = Load4(tokens + id[j] * dim + column);
#pragma unroll
  for (int j = 0; j < kRowsPerThread; ++j) {
    const int64_t row = first_row + j;
    if (row >= rows) return;
    const auto add = [&sum, j](float4 more) {
      sum[j] =
          make_float4(sum[j].x + more.x, sum[j].y + more.y, sum[j].z + more.z, sum[j].w + more.w);
    };
    if (type.data != nullptr) add(LoadEntry(type, column));
    if (position.data != nullptr) {
      add(LoadEntry(position, static_cast<int64_t>(positions[row]) * dim + column));
    }
    Store4(out + row * out_stride + column, sum[j]);
  }
}

bool IsAligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

}  // namespace

cudaError_t Embed(const DeviceTable& tokens, const DeviceTable& type, const DeviceTable& position,
                  const int32_t* ids, const int32_t* positions, int64_t rows, int64_t dim,
                  float* out, int64_t out_stride, cudaStream_t stream) {
  if (tokens.data == nullptr || ids == nullptr || dim <= 0 || dim > 1 << 20 || dim % 8 != 0 ||
      out == nullptr || out_stride < dim || out_stride % 4 != 0 || rows > INT_MAX ||
      !IsAligned(tokens.data) || !IsAligned(type.data) || !IsAligned(position.data) ||
      !IsAligned(out) || (position.data != nullptr && positions == nullptr)) {
    return cudaErrorInvalidValue;
  }
  if (rows <= 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>((rows + kRowsPerThread - 1) / kRowsPerThread),
                  static_cast<unsigned>((dim + 4 * kThreads - 1) / (4 * kThreads)));
  const auto launch = [&](auto element) {
    using T = decltype(element);
    return Launch(EmbedKernel<T>, grid, kThreads, 0, stream, static_cast<const T*>(tokens.data),
                  type, position, ids, positions, rows, static_cast<int>(dim), out, out_stride);
  };
  switch (tokens.type) {
    case cpu::StoredType::kF16:
      return launch(__half());
    case cpu::StoredType::kBF16:
      return launch(__nv_bfloat16());
    default:
      return launch(float());
  }
}

}  // namespace quiver
