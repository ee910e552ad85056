#include "kernels/cpu/norm_body.h"
#include "kernels/cpu/simd_avx2.h"

namespace quiver::cpu {

constinit const NormKernel kNormAvx2 = NormBody<Avx2Set>::kKernel;

}  // namespace quiver::cpu
