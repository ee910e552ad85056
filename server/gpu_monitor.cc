#include "server/gpu_monitor.h"

#include <array>
#include <limits>
#include <utility>

#include "engine/run/dynamic_library.h"

namespace quiver {
namespace {

constexpr unsigned kTextLength = 96;
// NVML_TEMPERATURE_GPU.
constexpr int kTemperatureOfGpu = 0;
// nvmlUtilization_t, in percent.
struct NvmlUtilization {
  unsigned gpu = 0;
  unsigned memory = 0;
};

std::vector<GpuState> ReadGpus(const DynamicLibrary& nvml) {
  unsigned count = 0;
  if (!nvml.Call("nvmlDeviceGetCount_v2", &count)) return {};
  std::vector<GpuState> gpus;
  for (unsigned i = 0; i < count; ++i) {
    void* device = nullptr;
    std::array<char, kTextLength> text = {};
    if (!nvml.Call("nvmlDeviceGetHandleByIndex_v2", i, &device) ||
        !nvml.Call("nvmlDeviceGetUUID", device, text.data(), kTextLength)) {
      continue;
    }
    GpuState& gpu = gpus.emplace_back();
    gpu.uuid = text.data();
    if (nvml.Call("nvmlDeviceGetName", device, text.data(), kTextLength)) gpu.name = text.data();
    constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
    NvmlMemory memory;
    const bool known = nvml.Call("nvmlDeviceGetMemoryInfo", device, &memory);
    gpu.memory_total_bytes = known ? static_cast<double>(memory.total) : kUnknown;
    gpu.memory_used_bytes = known ? static_cast<double>(memory.used) : kUnknown;
    gpu.memory_free_bytes = known ? static_cast<double>(memory.free) : kUnknown;
    NvmlUtilization utilization;
    gpu.utilization = nvml.Call("nvmlDeviceGetUtilizationRates", device, &utilization)
                          ? utilization.gpu / 100.0
                          : kUnknown;
    unsigned value = 0;
    gpu.power_watts =
        nvml.Call("nvmlDeviceGetPowerUsage", device, &value) ? value / 1000.0 : kUnknown;
    gpu.temperature_celsius =
        nvml.Call("nvmlDeviceGetTemperature", device, kTemperatureOfGpu, &value) ? value : kUnknown;
  }
  return gpus;
}

class NvmlMonitor : public GpuMonitor {
 public:
  explicit NvmlMonitor(absl::Duration period) : period_(period) {}

  ~NvmlMonitor() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    if (thread_.joinable()) thread_.join();
  }

  bool Begin() {
    if (!nvml_.Call("nvmlInit_v2")) return false;
    gpus_ = ReadGpus(nvml_);
    if (gpus_.empty()) return false;
    thread_ = std::thread([this] { Watch(); });
    return true;
  }

  std::vector<GpuState> Gpus() const override {
    absl::MutexLock lock(&mutex_);
    return gpus_;
  }

 private:
  void Watch() {
    absl::MutexLock lock(&mutex_);
    while (!mutex_.AwaitWithTimeout(absl::Condition(&stopping_), period_)) {
      mutex_.Unlock();
      std::vector<GpuState> gpus = ReadGpus(nvml_);
      mutex_.Lock();
      gpus_ = std::move(gpus);
    }
  }

  const absl::Duration period_;
  const DynamicLibrary nvml_{kManagementLibrary};
  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<GpuState> gpus_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace

std::unique_ptr<GpuMonitor> GpuMonitor::Start(absl::Duration period) {
  auto monitor = std::make_unique<NvmlMonitor>(period);
  if (!monitor->Begin()) return nullptr;
  return monitor;
}

}  // namespace quiver
