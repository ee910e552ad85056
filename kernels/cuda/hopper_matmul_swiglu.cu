#include "kernels/cuda/half.cuh"
#include "kernels/cuda/hopper_matmul_kernel.cuh"

namespace quiver::hopper_matmul {

cudaError_t LaunchSwiGlu(HalfType type, int columns, const Params& params, int multiprocessors,
                         cudaStream_t stream) {
  return WithHalf(type, [&](auto element) {
    using T = decltype(element);
    constexpr MatmulEpilogue kEpilogue = MatmulEpilogue::kSwiGlu;
    switch (columns) {
      case 128:
        return LaunchTiles<T, kEpilogue, 128>(params, multiprocessors, stream);
      case 160:
        return LaunchTiles<T, kEpilogue, 160>(params, multiprocessors, stream);
      case 192:
        return LaunchTiles<T, kEpilogue, 192>(params, multiprocessors, stream);
      case 240:
        return LaunchTiles<T, kEpilogue, 240>(params, multiprocessors, stream);
      case 256:
        return LaunchTiles<T, kEpilogue, 256>(params, multiprocessors, stream);
      default:
        return cudaErrorInvalidValue;
    }
  });
}

}  // namespace quiver::hopper_matmul
