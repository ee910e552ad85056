// Random values on the device, for measurements: zeros would make products faster than they are.
#ifndef QUIVER_KERNELS_CUDA_RANDOM_FILL_H_
#define QUIVER_KERNELS_CUDA_RANDOM_FILL_H_

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cpu/stored_type.h"

namespace quiver {

struct RandomUniform {
  float mean = 0;
  float range = 1;  // values lie in [mean - range, mean + range)
  uint64_t seed = 0;
};

// Element i of out[count] is a function of the seed and of i alone.
cudaError_t RandomFill(const RandomUniform& uniform, cpu::StoredType type, int64_t count, void* out,
                       cudaStream_t stream);

}  // namespace quiver

#endif  // QUIVER_KERNELS_CUDA_RANDOM_FILL_H_
