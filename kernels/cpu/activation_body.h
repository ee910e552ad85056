// ActivationKernel for an instruction set.
#ifndef QUIVER_KERNELS_CPU_ACTIVATION_BODY_H_
#define QUIVER_KERNELS_CPU_ACTIVATION_BODY_H_

#include "kernels/cpu/activation_kernel.h"
#include "kernels/cpu/simd_math.h"

namespace quiver::cpu {

template <typename Set>
struct ActivationBody {
  using Vec = typename Set::Vec;

  static void Activate(Activation activation, float* x, int64_t cols) {
    WithActivation(activation, [&]<Activation kActivation> {
      int64_t i = 0;
      for (; i + kLanes <= cols; i += kLanes) Activated<kActivation>(Vec::Load(x + i)).Store(x + i);
      if (i == cols) return;
      const int left = static_cast<int>(cols - i);
      Activated<kActivation>(Vec::LoadPartial(x + i, left)).StorePartial(x + i, left);
    });
  }

  static constexpr ActivationKernel kKernel = {Activate};
};

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_ACTIVATION_BODY_H_
