// What the backend has to know of a device before it takes anything of it.
#ifndef QUIVER_ENGINE_RUN_CUDA_CUDA_DEVICE_H_
#define QUIVER_ENGINE_RUN_CUDA_CUDA_DEVICE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/run/cuda/step_plan.h"
#include "kernels/cuda/attention.h"

namespace quiver {

struct CudaDevice {
  int ordinal = 0;
  std::string name;
  // As the driver's tools write it, "GPU-" and a UUID.
  std::string uuid;
  int compute_major = 0;
  int compute_minor = 0;
  AttentionPath path = AttentionPath::kPortable;
  DeviceRates rates;
  int64_t total_bytes = 0;
  // What was in use before this process came, and what its context takes.
  int64_t foreign_bytes = 0;
  int64_t context_bytes = 0;
  // Of FewRowsMatmul()'s workspace.
  int64_t few_rows_bytes = 0;

  // "cuda:0 (NVIDIA H200, sm_90, wgmma)".
  std::string Description() const;
  // What algorithms that were measured on it may be used for: card, driver, cuBLASLt.
  std::string Identity() const;
};

// Makes device `ordinal` the calling thread's, and its context. FAILED_PRECONDITION if there is no
// such device or Quiver does not run on it.
absl::StatusOr<CudaDevice> OpenCudaDevice(int ordinal, bool force_portable);

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_CUDA_DEVICE_H_
