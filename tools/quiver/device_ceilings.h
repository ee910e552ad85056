// What a device can do at best at a model's shapes: what a bench's rows are held against.
#ifndef QUIVER_TOOLS_QUIVER_DEVICE_CEILINGS_H_
#define QUIVER_TOOLS_QUIVER_DEVICE_CEILINGS_H_

#include <map>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/model/model_config.h"
#include "engine/run/device_options.h"

namespace quiver {

struct CeilingRates {
  // By number of tokens: tokens a second of the linear layers alone, every product by the fastest
  // algorithm that cuBLASLt offers for it.
  std::map<int, double> linear_tokens_per_s;
  // Of a product of 8192 cubed.
  double matmul_tflops = 0;
  // Of a copy within the device, bytes read and bytes written.
  double copy_tb_per_s = 0;
};

class DeviceCeilings {
 public:
  virtual ~DeviceCeilings() = default;

  // Measures all of them once, in some tenths of a second, on random data.
  virtual absl::StatusOr<CeilingRates> Measure() = 0;
};

// Chooses the algorithms, and takes device memory for as long as it lives. Only in a build with
// CUDA. RESOURCE_EXHAUSTED if memory is not there.
absl::StatusOr<std::unique_ptr<DeviceCeilings>> CreateCudaCeilings(int ordinal,
                                                                   const ModelConfig& config,
                                                                   ComputeType type);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_DEVICE_CEILINGS_H_
