// From sequences' hidden states on the device to the bytes of their vectors, with the meaning that
// kernels/cpu/pool_encode.h gives each step: pool, final RMSNorm, cut, normalize, encode.
//
// Deterministic and batch-invariant: a vector depends on its own rows alone, bit for bit.
#ifndef QUIVER_KERNELS_CUDA_POOL_ENCODE_H_
#define QUIVER_KERNELS_CUDA_POOL_ENCODE_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cpu/pool_encode.h"

namespace quiver {

// One vector to make, in device memory.
struct PoolItem {
  // Its rows of `hidden`: [first_row, first_row + num_rows), at least one.
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t dimensions = 0;  // 1 .. PoolTensors::dim
  cpu::Encoding encoding = cpu::Encoding::kFloat32;
  bool normalize = true;
  // Bytes from PoolTensors::out to its first byte, a multiple of 4. It takes
  // cpu::EncodedBytes(encoding, dimensions).
  int64_t out_offset = 0;
};

// What came of it. If not kOk, the bytes are unspecified.
struct PoolResult {
  float scale = 0;  // kInt8's factor of each element; 0 otherwise
  cpu::VectorStatus status = cpu::VectorStatus::kOk;
};

struct PoolTensors {
  const float* hidden = nullptr;  // [rows, dim] F32, aligned to 16 bytes
  int64_t hidden_stride = 0;      // in elements, a multiple of 4
  int64_t dim = 0;                // a multiple of 4, at most 8192
  // The model's final RMSNorm, [dim] F32, applied to every pooled row in F32; null if it has none.
  const float* norm_weight = nullptr;
  float norm_eps = 0;
  const PoolItem* items = nullptr;  // [num_items]
  int num_items = 0;
  void* out = nullptr;            // aligned to 16 bytes
  PoolResult* results = nullptr;  // [num_items]
};

// `kind` holds for all items. An item with num_rows 0 is skipped, its result left as it is.
cudaError_t PoolEncode(cpu::PoolKind kind, const PoolTensors& tensors, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_POOL_ENCODE_H_
