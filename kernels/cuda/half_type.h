// The 16-bit types that activations and weights have on the device.
#ifndef QUIVER_KERNELS_CUDA_HALF_TYPE_H_
#define QUIVER_KERNELS_CUDA_HALF_TYPE_H_

#include <cstdint>

namespace quiver {

enum class HalfType : uint8_t { kBf16, kF16 };

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_HALF_TYPE_H_
