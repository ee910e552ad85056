#include "kernels/cpu/norm_body.h"

namespace quiver::cpu {

constinit const NormKernel kNormGeneric = NormBody<GenericSet>::kKernel;

}  // namespace quiver::cpu
