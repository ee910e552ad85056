#ifndef QUIVER_ENGINE_SCHEDULE_DEVICE_LOOP_H_
#define QUIVER_ENGINE_SCHEDULE_DEVICE_LOOP_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "engine/run/backend.h"
#include "engine/schedule/scheduler_core.h"

namespace quiver {

// Does on a backend what a SchedulerCore decides, one action at a time. An exception of the backend
// counts as a failed pass. To be driven by one thread.
class DeviceLoop {
 public:
  // Nanoseconds since the epoch.
  using Clock = std::function<int64_t()>;

  // All must outlive the loop. `mutex` guards `core`; it is not held while the backend works or a
  // completion is delivered.
  DeviceLoop(SchedulerCore* core, absl::Mutex* mutex, Backend* backend, Clock clock);

  // One action, and the delivery of what is then answered. Returns false if there was nothing to
  // do.
  bool Turn() ABSL_LOCKS_EXCLUDED(*mutex_);

  // Delivers what has been answered.
  void Deliver() ABSL_LOCKS_EXCLUDED(*mutex_);

 private:
  void Begin(int seat, PackedBatch batch);
  void Run(int seat, int64_t max_us);
  void Fail(int seat, const absl::Status& error);

  SchedulerCore* const core_ ABSL_PT_GUARDED_BY(*mutex_);
  absl::Mutex* const mutex_;
  Backend* const backend_;
  const Clock clock_;
  std::array<std::unique_ptr<Pass>, SchedulerCore::kNumSeats> passes_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_DEVICE_LOOP_H_
