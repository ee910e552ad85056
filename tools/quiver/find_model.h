#ifndef QUIVER_TOOLS_QUIVER_FIND_MODEL_H_
#define QUIVER_TOOLS_QUIVER_FIND_MODEL_H_

#include <string>

#include "absl/status/statusor.h"
#include "server/hub/fetch_model.h"

namespace quiver {

class Progress;

// ResolveModel(), with progress on standard error.
absl::StatusOr<ResolvedModel> FindModel(const std::string& model);

// Shows what of a model is there. `progress` must outlive it.
FetchObserver ShowFetching(Progress* progress);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_FIND_MODEL_H_
