#include "kernels/cpu/norm_body.h"
#include "kernels/cpu/simd_avx512.h"

namespace quiver::cpu {

constinit const NormKernel kNormAvx512 = NormBody<Avx512Set>::kKernel;

}  // namespace quiver::cpu
