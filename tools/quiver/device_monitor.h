#ifndef QUIVER_TOOLS_QUIVER_DEVICE_MONITOR_H_
#define QUIVER_TOOLS_QUIVER_DEVICE_MONITOR_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "engine/run/dynamic_library.h"

namespace quiver {

// What the driver tells of a CUDA device while a program runs on it. Takes no memory of it.
class DeviceMonitor {
 public:
  // Null if there is no such device, or no driver.
  static std::unique_ptr<DeviceMonitor> Open(int ordinal);

  const std::string& name() const { return name_; }
  const std::string& driver_version() const { return driver_version_; }

  // Memory of the device that is taken: in all, and by this process (-1 where the driver does not
  // tell, as in some containers).
  int64_t UsedBytes() const;
  int64_t ProcessBytes() const;

  // 0 where the driver does not tell.
  int SmClockMhz() const;
  double PowerWatts() const;

 private:
  DeviceMonitor(DynamicLibrary nvml, void* device) : nvml_(nvml), device_(device) {}

  const DynamicLibrary nvml_;
  void* const device_;
  std::string name_;
  std::string driver_version_;
};

// The most memory that is taken while this lives, looked at every few milliseconds.
class PeakMemory {
 public:
  explicit PeakMemory(const DeviceMonitor* monitor);
  ~PeakMemory() { Stop(); }
  PeakMemory(const PeakMemory&) = delete;
  PeakMemory& operator=(const PeakMemory&) = delete;

  // Looks a last time. The most since construction, less what was taken then.
  int64_t Stop();

 private:
  void Look();

  const DeviceMonitor* const monitor_;
  const int64_t before_;
  int64_t peak_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_DEVICE_MONITOR_H_
