#ifndef QUIVER_KERNELS_CPU_ISA_H_
#define QUIVER_KERNELS_CPU_ISA_H_

namespace quiver::cpu {

// Instruction sets that the CPU kernels are compiled for, in ascending order.
// kAvx2 is AVX2 with FMA and F16C, kAvx512 that with F, BW, DQ and VL.
enum class Isa { kGeneric, kAvx2, kAvx512 };

// The best one that this machine and its operating system support, found once. The environment
// variable QUIVER_CPU_ISA ("generic", "avx2", "avx512") lowers it, for tests; it never raises it.
Isa BestIsa();

// "generic", "avx2", "avx512".
const char* IsaName(Isa isa);

// The one of a kernel's tables that is for BestIsa().
template <typename Kernel>
const Kernel& KernelFor(const Kernel& generic, const Kernel& avx2, const Kernel& avx512) {
  switch (BestIsa()) {
    case Isa::kGeneric:
      return generic;
    case Isa::kAvx2:
      return avx2;
    case Isa::kAvx512:
      return avx512;
  }
  return generic;
}

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_ISA_H_
