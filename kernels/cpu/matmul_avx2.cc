#include "kernels/cpu/matmul_body.h"
#include "kernels/cpu/simd_avx2.h"

namespace quiver::cpu {

constinit const MatmulKernel kMatmulAvx2 = MatmulBody<Avx2Set>::kKernel;

}  // namespace quiver::cpu
