#ifndef QUIVER_ENGINE_SCHEDULE_WARM_UP_H_
#define QUIVER_ENGINE_SCHEDULE_WARM_UP_H_

#include "absl/status/status.h"
#include "engine/run/backend.h"
#include "engine/schedule/cost_model.h"

namespace quiver {

// Runs passes of growing size on a backend that nobody uses yet, so that no request pays for what
// happens the first time, and teaches `cost` what they took. Stops growing after about a third of
// a second. The error of a pass that fails, that throws, or that gives no vector.
absl::Status WarmUp(Backend* backend, int vocabulary_size, CostModel* cost);

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_WARM_UP_H_
