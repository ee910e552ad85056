// Work mapping: a warp takes four neighbouring elements a lane, a block 128 lanes of one row.
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

__global__ void EmbedKernel(DeviceTable tokens, DeviceTable type, DeviceTable position,
                            const int32_t* ids, const int32_t* positions, int dim, float* out,
                            int64_t out_stride) {
  const int64_t row = blockIdx.x;
  const int column = 4 * static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  WaitForEarlierKernels();
  if (column >= dim) return;
  float4 sum = LoadEntry(tokens, static_cast<int64_t>(ids[row]) * dim + column);
  const auto add = [&sum](float4 more) {
    sum = make_float4(sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w);
  };
  if (type.data != nullptr) add(LoadEntry(type, column));
  if (position.data != nullptr) {
    add(LoadEntry(position, static_cast<int64_t>(positions[row]) * dim + column));
  }
  Store4(out + row * out_stride + column, sum);
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
  const dim3 grid(static_cast<unsigned>(rows),
                  static_cast<unsigned>((dim + 4 * kThreads - 1) / (4 * kThreads)));
  return Launch(EmbedKernel, grid, kThreads, 0, stream, tokens, type, position, ids, positions,
                static_cast<int>(dim), out, out_stride);
}

}  // namespace quiver
