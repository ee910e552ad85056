#ifndef QUIVER_TOOLS_QUIVER_DESCRIBE_MODEL_H_
#define QUIVER_TOOLS_QUIVER_DESCRIBE_MODEL_H_

#include "absl/status/statusor.h"
#include "quiver/v1/embed.pb.h"
#include "server/hub/fetch_model.h"

namespace quiver {

// What a server with default flags would say of `model`, as far as its files tell:
// no device, no limits of requests. The vector space is that of the CPU's arithmetic; naming it
// (`fingerprint`) reads the weights to the end, the rest only their headers.
absl::StatusOr<v1::ModelInfo> DescribeModel(const ResolvedModel& model, bool fingerprint);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_DESCRIBE_MODEL_H_
