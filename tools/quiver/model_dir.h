#ifndef QUIVER_TOOLS_QUIVER_MODEL_DIR_H_
#define QUIVER_TOOLS_QUIVER_MODEL_DIR_H_

#include <string>

#include "absl/status/statusor.h"
#include "server/hub/fetch_model.h"

namespace quiver {

class Progress;

// Of a model by its folder or by its name at a hub, which is fetched if the cache lacks it, with
// progress on standard error. ResolveModel()'s errors.
absl::StatusOr<std::string> FindModelDir(const std::string& model);

// Shows what of a model is there. `progress` must outlive it.
FetchObserver ShowFetching(Progress* progress);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_MODEL_DIR_H_
