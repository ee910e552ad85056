#include "kernels/cpu/matmul_body.h"
#include "kernels/cpu/simd_avx512.h"

namespace quiver::cpu {

constinit const MatmulKernel kMatmulAvx512 = MatmulBody<Avx512Set>::kKernel;

}  // namespace quiver::cpu
