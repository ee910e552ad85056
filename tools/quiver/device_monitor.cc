#include "tools/quiver/device_monitor.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <vector>

namespace quiver {
namespace {

constexpr std::chrono::milliseconds kInterval(10);
constexpr int kTextBytes = 128;

// nvmlProcessInfo_t of the functions' third version.
struct NvmlProcess {
  unsigned pid;
  unsigned long long used_bytes;
  unsigned gpu_instance, compute_instance;
};
// NVML_VALUE_NOT_AVAILABLE.
constexpr unsigned long long kNotAvailable = ~0ull;
// NVML_CLOCK_SM.
constexpr int kClockSm = 1;

}  // namespace

std::unique_ptr<DeviceMonitor> DeviceMonitor::Open(int ordinal) {
  const DynamicLibrary cuda("libcuda.so.1");
  const DynamicLibrary nvml(kManagementLibrary);
  // CUDA may number devices in another order, and show fewer.
  int cuda_device = 0;
  char bus[kTextBytes] = "";
  void* device = nullptr;
  if (!cuda.Call("cuInit", 0u) || !cuda.Call("cuDeviceGet", &cuda_device, ordinal) ||
      !cuda.Call("cuDeviceGetPCIBusId", static_cast<char*>(bus), kTextBytes, cuda_device) ||
      !nvml.Call("nvmlInit_v2") ||
      !nvml.Call("nvmlDeviceGetHandleByPciBusId_v2", static_cast<const char*>(bus), &device)) {
    return nullptr;
  }
  std::unique_ptr<DeviceMonitor> monitor(new DeviceMonitor(nvml, device));
  char text[kTextBytes] = "";
  const auto size = static_cast<unsigned>(kTextBytes);
  if (nvml.Call("nvmlDeviceGetName", device, static_cast<char*>(text), size)) {
    monitor->name_ = text;
  }
  if (nvml.Call("nvmlSystemGetDriverVersion", static_cast<char*>(text), size)) {
    monitor->driver_version_ = text;
  }
  return monitor;
}

int64_t DeviceMonitor::UsedBytes() const {
  NvmlMemory memory;
  nvml_.Call("nvmlDeviceGetMemoryInfo", device_, &memory);
  return static_cast<int64_t>(memory.used);
}

int64_t DeviceMonitor::ProcessBytes() const {
  std::vector<NvmlProcess> processes(256);
  auto count = static_cast<unsigned>(processes.size());
  if (!nvml_.Call("nvmlDeviceGetComputeRunningProcesses_v3", device_, &count, processes.data())) {
    return -1;
  }
  processes.resize(count);
  const auto pid = static_cast<unsigned>(getpid());
  for (const NvmlProcess& process : processes) {
    if (process.pid == pid && process.used_bytes != kNotAvailable) {
      return static_cast<int64_t>(process.used_bytes);
    }
  }
  return -1;
}

int DeviceMonitor::SmClockMhz() const {
  unsigned mhz = 0;
  nvml_.Call("nvmlDeviceGetClockInfo", device_, kClockSm, &mhz);
  return static_cast<int>(mhz);
}

double DeviceMonitor::PowerWatts() const {
  unsigned milliwatts = 0;
  nvml_.Call("nvmlDeviceGetPowerUsage", device_, &milliwatts);
  return milliwatts * 1e-3;
}

PeakMemory::PeakMemory(const DeviceMonitor* monitor)
    : monitor_(monitor), before_(monitor->UsedBytes()), peak_(before_) {
  thread_ = std::thread([this] {
    while (!stopping_) {
      Look();
      std::this_thread::sleep_for(kInterval);
    }
  });
}

void PeakMemory::Look() { peak_ = std::max(peak_, monitor_->UsedBytes()); }

int64_t PeakMemory::Stop() {
  stopping_ = true;
  if (thread_.joinable()) {
    thread_.join();
    Look();
  }
  return peak_ - before_;
}

}  // namespace quiver
