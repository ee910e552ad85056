// Elementwise operators between matrix products: 16-bit in, F32 arithmetic, 16-bit out.
//
// Row-major device matrices, aligned to 16 bytes; strides in elements and `cols` are multiples
// of 8. cudaErrorInvalidValue for what is not.
#ifndef QUIVER_KERNELS_CUDA_ACTIVATION_H_
#define QUIVER_KERNELS_CUDA_ACTIVATION_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cpu/activation.h"
#include "kernels/cuda/fp8.h"
#include "kernels/cuda/half_type.h"

namespace quiver {

// out = silu(gate) * up, where a row of `gate_up` is [gate: cols | up: cols]. `out` may be
// `gate_up` with the same stride: the product then takes the gate's place.
cudaError_t SwiGlu(const void* gate_up, int64_t gate_up_stride, int64_t rows, int64_t cols,
                   void* out, int64_t out_stride, HalfType type, cudaStream_t stream);

// The same in FP8, each row scaled for itself, of at most kMaxFp8Columns. A row of `out` may lie in
// that of `gate_up`.
cudaError_t SwiGluFp8(const void* gate_up, int64_t gate_up_stride, int64_t rows, int64_t cols,
                      const Fp8Rows& out, HalfType type, cudaStream_t stream);

// x = activation(x + bias), in place. bias is [cols], F32; null for none. kNone only adds the bias.
cudaError_t BiasActivate(cpu::Activation activation, const float* bias, int64_t rows, int64_t cols,
                         void* x, int64_t x_stride, HalfType type, cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_ACTIVATION_H_
