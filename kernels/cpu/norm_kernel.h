// What norm.cc and rope.cc ask of an instruction set. Private to kernels/cpu.
#ifndef QUIVER_KERNELS_CPU_NORM_KERNEL_H_
#define QUIVER_KERNELS_CPU_NORM_KERNEL_H_

#include <cstdint>

namespace quiver::cpu {

// One row each; y may be x.
struct NormKernel {
  void (*rms)(const float* x, int64_t dim, const float* weight, float eps, float* y);
  void (*layer)(const float* x, int64_t dim, const float* weight, const float* bias, float eps,
                float* y);
  // sum += x
  void (*add)(float* sum, const float* x, int64_t dim);
  // The rotation of QkNormRope: x is [2 * half], cos and sin are [half].
  void (*rotate)(float* x, int64_t half, const float* cos, const float* sin);
};

extern const NormKernel kNormGeneric;
extern const NormKernel kNormAvx2;
extern const NormKernel kNormAvx512;

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_NORM_KERNEL_H_
