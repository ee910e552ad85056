#include "kernels/cpu/activation.h"

#include "kernels/cpu/activation_kernel.h"
#include "kernels/cpu/isa.h"

namespace quiver::cpu {

void Activate(Activation activation, float* x, int64_t row_stride, int64_t rows, int64_t cols,
              ThreadPool* pool) {
  const ActivationKernel& kernel =
      KernelFor(kActivationGeneric, kActivationAvx2, kActivationAvx512);
  ParallelForRows(pool, rows,
                  [&](int64_t row) { kernel.activate(activation, x + row * row_stride, cols); });
}

}  // namespace quiver::cpu
