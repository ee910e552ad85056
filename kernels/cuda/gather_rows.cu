#include <climits>
#include <cstdint>

#include "kernels/cuda/gather_rows.h"

namespace quiver {
namespace {

constexpr int kThreads = 128;

// One block a row, 16 bytes a thread.
__global__ void GatherRowsKernel(const char* source, int64_t source_stride, const int32_t* rows,
                                 int64_t row_bytes, char* out, int64_t out_stride) {
  const char* from = source + rows[blockIdx.x] * source_stride;
  char* to = out + blockIdx.x * out_stride;
  for (int64_t i = threadIdx.x * 16; i < row_bytes; i += kThreads * 16) {
    *reinterpret_cast<uint4*>(to + i) = *reinterpret_cast<const uint4*>(from + i);
  }
}

bool IsAligned(const void* pointer, int64_t stride) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride % 16 == 0;
}

}  // namespace

cudaError_t GatherRows(const void* source, int64_t source_stride_bytes, const int32_t* rows,
                       int64_t num_rows, int64_t row_bytes, void* out, int64_t out_stride_bytes,
                       cudaStream_t stream) {
  if (num_rows == 0) return cudaSuccess;
  if (!IsAligned(source, source_stride_bytes) || !IsAligned(out, out_stride_bytes) ||
      row_bytes % 16 != 0 || rows == nullptr || num_rows < 0 || num_rows > INT_MAX) {
    return cudaErrorInvalidValue;
  }
  GatherRowsKernel<<<static_cast<unsigned>(num_rows), kThreads, 0, stream>>>(
      static_cast<const char*>(source), source_stride_bytes, rows, row_bytes,
      static_cast<char*>(out), out_stride_bytes);
  return cudaGetLastError();
}

}  // namespace quiver
