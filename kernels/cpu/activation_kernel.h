// What activation.cc asks of an instruction set. Private to kernels/cpu.
#ifndef QUIVER_KERNELS_CPU_ACTIVATION_KERNEL_H_
#define QUIVER_KERNELS_CPU_ACTIVATION_KERNEL_H_

#include <cstdint>

#include "kernels/cpu/activation.h"

namespace quiver::cpu {

struct ActivationKernel {
  // One row, in place.
  void (*activate)(Activation activation, float* x, int64_t cols);
};

extern const ActivationKernel kActivationGeneric;
extern const ActivationKernel kActivationAvx2;
extern const ActivationKernel kActivationAvx512;

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_ACTIVATION_KERNEL_H_
