#include "server/gpu_monitor.h"

#include <dlfcn.h>

#include <array>
#include <limits>
#include <utility>

namespace quiver {
namespace {

// What is used of NVML's interface (nvml.h of the CUDA toolkit), which is stable by its versioned
// names. Functions return 0 for success.
constexpr char kLibrary[] = "libnvidia-ml.so.1";
constexpr unsigned kTextLength = 96;
constexpr int kTemperatureOfGpu = 0;
using Device = void*;
struct Memory {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;
};
struct Utilization {
  unsigned gpu;
  unsigned memory;
};

class Nvml {
 public:
  // Whether the library is there and ready.
  bool Open() {
    library_ = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
    return library_ != nullptr && Find("nvmlInit_v2", &init_) &&
           Find("nvmlDeviceGetCount_v2", &count_) &&
           Find("nvmlDeviceGetHandleByIndex_v2", &handle_) && Find("nvmlDeviceGetUUID", &uuid_) &&
           Find("nvmlDeviceGetName", &name_) && Find("nvmlDeviceGetMemoryInfo", &memory_) &&
           Find("nvmlDeviceGetUtilizationRates", &utilization_) &&
           Find("nvmlDeviceGetPowerUsage", &power_) &&
           Find("nvmlDeviceGetTemperature", &temperature_) && init_() == 0;
  }

  std::vector<GpuState> Read() const {
    unsigned count = 0;
    if (count_(&count) != 0) return {};
    std::vector<GpuState> gpus;
    for (unsigned i = 0; i < count; ++i) {
      Device device = nullptr;
      std::array<char, kTextLength> text = {};
      if (handle_(i, &device) != 0 || uuid_(device, text.data(), kTextLength) != 0) continue;
      GpuState& gpu = gpus.emplace_back();
      gpu.uuid = text.data();
      if (name_(device, text.data(), kTextLength) == 0) gpu.name = text.data();
      constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
      Memory memory = {};
      const bool known = memory_(device, &memory) == 0;
      gpu.memory_total_bytes = known ? static_cast<double>(memory.total) : kUnknown;
      gpu.memory_used_bytes = known ? static_cast<double>(memory.used) : kUnknown;
      gpu.memory_free_bytes = known ? static_cast<double>(memory.free) : kUnknown;
      Utilization utilization = {};
      gpu.utilization =
          utilization_(device, &utilization) == 0 ? utilization.gpu / 100.0 : kUnknown;
      unsigned value = 0;
      gpu.power_watts = power_(device, &value) == 0 ? value / 1000.0 : kUnknown;
      gpu.temperature_celsius =
          temperature_(device, kTemperatureOfGpu, &value) == 0 ? value : kUnknown;
    }
    return gpus;
  }

 private:
  template <typename Function>
  bool Find(const char* name, Function** function) {
    *function = reinterpret_cast<Function*>(dlsym(library_, name));
    return *function != nullptr;
  }

  // Never closed: the library keeps threads and exit handlers of its own.
  void* library_ = nullptr;
  int (*init_)() = nullptr;
  int (*count_)(unsigned*) = nullptr;
  int (*handle_)(unsigned, Device*) = nullptr;
  int (*uuid_)(Device, char*, unsigned) = nullptr;
  int (*name_)(Device, char*, unsigned) = nullptr;
  int (*memory_)(Device, Memory*) = nullptr;
  int (*utilization_)(Device, Utilization*) = nullptr;
  int (*power_)(Device, unsigned*) = nullptr;
  int (*temperature_)(Device, int, unsigned*) = nullptr;
};

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
    if (!nvml_.Open()) return false;
    gpus_ = nvml_.Read();
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
      std::vector<GpuState> gpus = nvml_.Read();
      mutex_.Lock();
      gpus_ = std::move(gpus);
    }
  }

  const absl::Duration period_;
  Nvml nvml_;
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
