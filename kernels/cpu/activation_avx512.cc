#include "kernels/cpu/activation_body.h"
#include "kernels/cpu/simd_avx512.h"

namespace quiver::cpu {

constinit const ActivationKernel kActivationAvx512 = ActivationBody<Avx512Set>::kKernel;

}  // namespace quiver::cpu
