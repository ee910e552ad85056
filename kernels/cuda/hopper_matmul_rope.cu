#include "kernels/cuda/half.cuh"
#include "kernels/cuda/hopper_matmul_kernel.cuh"

namespace quiver::hopper_matmul {

cudaError_t LaunchQkNormRope(HalfType type, int columns, const Params& params, int multiprocessors,
                             cudaStream_t stream) {
  return WithHalf(type, [&](auto element) {
    using T = decltype(element);
    constexpr MatmulEpilogue kEpilogue = MatmulEpilogue::kQkNormRope;
    switch (columns) {
      case 128:
        return LaunchTiles<T, kEpilogue, 128>(params, multiprocessors, stream);
      case 256:
        return LaunchTiles<T, kEpilogue, 256>(params, multiprocessors, stream);
      default:
        return cudaErrorInvalidValue;
    }
  });
}

}  // namespace quiver::hopper_matmul
