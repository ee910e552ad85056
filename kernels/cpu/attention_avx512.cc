#include "kernels/cpu/attention_body.h"
#include "kernels/cpu/simd_avx512.h"

namespace quiver::cpu {

constinit const AttentionKernel kAttentionAvx512 = AttentionBody<Avx512Set>::kKernel;

}  // namespace quiver::cpu
