#include "kernels/cpu/activation_body.h"

namespace quiver::cpu {

constinit const ActivationKernel kActivationGeneric = ActivationBody<GenericSet>::kKernel;

}  // namespace quiver::cpu
