#ifndef QUIVER_KERNELS_CPU_ISA_H_
#define QUIVER_KERNELS_CPU_ISA_H_

namespace quiver::cpu {

// Instruction sets that the CPU kernels are compiled for, in ascending order.
enum class Isa { kGeneric, kAvx2, kAvx512 };

// The best one that this machine and its operating system support, found once. The environment
// variable QUIVER_CPU_ISA
// ("generic", "avx2", "avx512") lowers it, for tests; it never raises it.
Isa BestIsa();

// "generic", "avx2", "avx512".
const char* IsaName(Isa isa);

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_ISA_H_
