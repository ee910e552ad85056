// From the CUDA libraries' errors to the engine's.
#ifndef QUIVER_ENGINE_RUN_CUDA_CUDA_STATUS_H_
#define QUIVER_ENGINE_RUN_CUDA_CUDA_STATUS_H_

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace quiver {

// RESOURCE_EXHAUSTED where memory is short, else INTERNAL; says what was done.
inline absl::Status CudaStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const absl::StatusCode code = error == cudaErrorMemoryAllocation
                                    ? absl::StatusCode::kResourceExhausted
                                    : absl::StatusCode::kInternal;
  return absl::Status(code, absl::StrCat("CUDA: ", what, ": ", cudaGetErrorString(error)));
}

// The first error of a row of calls, the later of which do no harm after it.
class CudaCalls {
 public:
  void operator()(cudaError_t error, absl::string_view what) {
    if (status_.ok() && error != cudaSuccess) status_ = CudaStatus(error, what);
  }
  void operator()(const absl::Status& status) {
    if (status_.ok() && !status.ok()) status_ = status;
  }
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

 private:
  absl::Status status_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_CUDA_STATUS_H_
