#include "engine/run/cuda/device_memory.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <array>

#include "absl/strings/str_cat.h"
#include "engine/run/cuda/cuda_status.h"

namespace quiver {
namespace {

std::string Purpose(int64_t bytes, const std::string& purpose) {
  return absl::StrCat("taking ", bytes, " bytes for ", purpose);
}

// The public C interface of libnvidia-ml, as far as it is used.
struct ManagementLibrary {
  struct Memory {
    unsigned long long total;
    unsigned long long free;
    unsigned long long used;
  };
  int (*init)() = nullptr;
  int (*handle_by_bus_id)(const char*, void**) = nullptr;
  int (*memory_info)(void*, Memory*) = nullptr;

  ManagementLibrary() {
    // Stays open: the driver's libraries do not bear being closed.
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return;
    init = reinterpret_cast<int (*)()>(dlsym(library, "nvmlInit_v2"));
    handle_by_bus_id = reinterpret_cast<int (*)(const char*, void**)>(
        dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2"));
    memory_info =
        reinterpret_cast<int (*)(void*, Memory*)>(dlsym(library, "nvmlDeviceGetMemoryInfo"));
  }
  bool complete() const {
    return init != nullptr && handle_by_bus_id != nullptr && memory_info != nullptr;
  }
};

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
  static const ManagementLibrary library;
  std::array<char, 64> bus_id = {};
  void* handle = nullptr;
  ManagementLibrary::Memory memory = {};
  if (!library.complete() ||
      cudaDeviceGetPCIBusId(bus_id.data(), static_cast<int>(bus_id.size()), ordinal) !=
          cudaSuccess ||
      library.init() != 0 || library.handle_by_bus_id(bus_id.data(), &handle) != 0 ||
      library.memory_info(handle, &memory) != 0) {
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

}  // namespace quiver
