#include "engine/run/cuda/device_memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "engine/run/cuda/cuda_status.h"
#include "engine/run/dynamic_library.h"

namespace quiver {
namespace {

std::string Purpose(int64_t bytes, const std::string& purpose) {
  return absl::StrCat("taking ", bytes, " bytes for ", purpose);
}

}  // namespace

void FreeDeviceMemory::operator()(std::byte* data) const { cudaFree(data); }
void FreePinnedMemory::operator()(std::byte* data) const { cudaFreeHost(data); }

absl::StatusOr<DeviceMemory> AllocateDevice(int64_t bytes, const std::string& purpose) {
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(bytes));
  if (error != cudaSuccess) return CudaStatus(error, Purpose(bytes, purpose));
  return DeviceMemory(static_cast<std::byte*>(data));
}

absl::StatusOr<PinnedMemory> AllocatePinned(int64_t bytes, const std::string& purpose) {
  void* data = nullptr;
  const cudaError_t error = cudaMallocHost(&data, static_cast<size_t>(bytes));
  if (error != cudaSuccess) return CudaStatus(error, Purpose(bytes, purpose));
  return PinnedMemory(static_cast<std::byte*>(data));
}

std::optional<int64_t> UsedBytesWithoutContext(int ordinal) {
  static const DynamicLibrary nvml(kManagementLibrary);
  std::array<char, 64> bus_id = {};
  void* handle = nullptr;
  NvmlMemory memory;
  if (cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), ordinal) !=
          cudaSuccess ||
      !nvml.Call("nvmlInit_v2") ||
      !nvml.Call("nvmlDeviceGetHandleByPciBusId_v2", static_cast<const char*>(bus_id.data()),
                 &handle) ||
      !nvml.Call("nvmlDeviceGetMemoryInfo", handle, &memory)) {
    return std::nullopt;
  }
  // "used" leaves out what the driver keeps for itself, or not, by its version.
  return static_cast<int64_t>(memory.total - memory.free);
}

absl::StatusOr<DeviceUse> CurrentDeviceUse() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  const cudaError_t error = cudaMemGetInfo(&free_bytes, &total_bytes);
  if (error != cudaSuccess) return CudaStatus(error, "asking for free memory");
  return DeviceUse{static_cast<int64_t>(total_bytes - free_bytes),
                   static_cast<int64_t>(total_bytes)};
}

DeviceUseGrowth::DeviceUseGrowth(int64_t* bytes) : bytes_(bytes), before_(CurrentDeviceUse()) {}

DeviceUseGrowth::~DeviceUseGrowth() {
  const absl::StatusOr<DeviceUse> after = CurrentDeviceUse();
  if (!before_.ok() || !after.ok()) return;
  *bytes_ += std::max<int64_t>(0, after->used_bytes - before_->used_bytes);
}

}  // namespace quiver
