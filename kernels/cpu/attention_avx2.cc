#include "kernels/cpu/attention_body.h"
#include "kernels/cpu/simd_avx2.h"

namespace quiver::cpu {

constinit const AttentionKernel kAttentionAvx2 = AttentionBody<Avx2Set>::kKernel;

}  // namespace quiver::cpu
