// Memory of the device, and of the host where the device copies from and to it by itself.
#ifndef QUIVER_ENGINE_RUN_CUDA_DEVICE_MEMORY_H_
#define QUIVER_ENGINE_RUN_CUDA_DEVICE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace quiver {

struct FreeDeviceMemory {
  void operator()(std::byte* data) const;
};
using DeviceMemory = std::unique_ptr<std::byte, FreeDeviceMemory>;
// Aligned to at least 256 bytes; RESOURCE_EXHAUSTED says what for.
absl::StatusOr<DeviceMemory> AllocateDevice(int64_t bytes, const std::string& purpose);

struct FreePinnedMemory {
  void operator()(std::byte* data) const;
};
using PinnedMemory = std::unique_ptr<std::byte, FreePinnedMemory>;
absl::StatusOr<PinnedMemory> AllocatePinned(int64_t bytes, const std::string& purpose);

// What all processes use of device `ordinal`, by the driver's management library: unlike
// cudaMemGetInfo it can be asked before this process has a context. Nothing where that library is
// not found or does not answer.
std::optional<int64_t> UsedBytesWithoutContext(int ordinal);

// The same through the current device's context, and what the device has in all.
struct DeviceUse {
  int64_t used_bytes = 0;
  int64_t total_bytes = 0;
};
absl::StatusOr<DeviceUse> CurrentDeviceUse();

// Adds to `*bytes`, which must outlive it, what the use of the current device has grown by from
// its construction to its end: what the driver takes by itself, such as for a kernel's code when it
// is first run. What another process takes meanwhile counts as well. Adds nothing where use shrank.
class DeviceUseGrowth {
 public:
  explicit DeviceUseGrowth(int64_t* bytes);
  DeviceUseGrowth(const DeviceUseGrowth&) = delete;
  DeviceUseGrowth& operator=(const DeviceUseGrowth&) = delete;
  ~DeviceUseGrowth();

 private:
  int64_t* const bytes_;
  const absl::StatusOr<DeviceUse> before_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_RUN_CUDA_DEVICE_MEMORY_H_
