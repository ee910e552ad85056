// Activation functions, elementwise in F32.
#ifndef QUIVER_KERNELS_CPU_ACTIVATION_H_
#define QUIVER_KERNELS_CPU_ACTIVATION_H_

#include <cstdint>

#include "kernels/cpu/thread_pool.h"

namespace quiver::cpu {

// kGelu:     x * Phi(x), Phi the standard normal distribution ("exact", by erf)
// kGeluTanh: 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
// kSilu:     x / (1 + exp(-x))
// kRelu:     max(x, 0)
//
// Error against the exact function for |x| <= 1e4: kGelu, kGeluTanh and kSilu within
// 4e-7 |x|; kNone and kRelu none. NaN gives NaN.
enum class Activation : uint8_t { kNone, kGelu, kGeluTanh, kSilu, kRelu };

// x[i] = activation(x[i]) for a row-major [rows, cols] matrix, in place.
void Activate(Activation activation, float* x, int64_t row_stride, int64_t rows, int64_t cols,
              ThreadPool* pool);

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_ACTIVATION_H_
