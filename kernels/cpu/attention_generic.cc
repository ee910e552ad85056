#include "kernels/cpu/attention_body.h"

namespace quiver::cpu {

constinit const AttentionKernel kAttentionGeneric = AttentionBody<GenericSet>::kKernel;

}  // namespace quiver::cpu
