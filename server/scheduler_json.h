#ifndef QUIVER_SERVER_SCHEDULER_JSON_H_
#define QUIVER_SERVER_SCHEDULER_JSON_H_

#include <string>

#include "engine/schedule/scheduler.h"

namespace quiver {

// What waits, by lane and by tenant, the passes on the device and what the cost model has learned,
// for a person who looks into a running server. Times in ms, the model's coefficients in us.
std::string SchedulerJson(const QueueSnapshot& snapshot);

}  // namespace quiver

#endif  // QUIVER_SERVER_SCHEDULER_JSON_H_
