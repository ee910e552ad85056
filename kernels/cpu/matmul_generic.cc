#include "kernels/cpu/matmul_body.h"

namespace quiver::cpu {

constinit const MatmulKernel kMatmulGeneric = MatmulBody<GenericSet>::kKernel;

}  // namespace quiver::cpu
