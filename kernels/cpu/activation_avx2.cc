#include "kernels/cpu/activation_body.h"
#include "kernels/cpu/simd_avx2.h"

namespace quiver::cpu {

constinit const ActivationKernel kActivationAvx2 = ActivationBody<Avx2Set>::kKernel;

}  // namespace quiver::cpu
