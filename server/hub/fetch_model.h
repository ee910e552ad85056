#ifndef QUIVER_SERVER_HUB_FETCH_MODEL_H_
#define QUIVER_SERVER_HUB_FETCH_MODEL_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/hub/hub_options.h"
#include "server/hub/model_name.h"

namespace quiver {

struct FetchProgress {
  int files = 0;  // to be fetched
  int files_done = 0;
  int64_t bytes = 0;  // of those whose size is known
  int64_t bytes_done = 0;
};
// Called by one thread at a time.
using FetchObserver = std::function<void(const FetchProgress&)>;

// The folder of the model in the cache, with all that serving it needs, whole. Without the network
// if it is there already and `update` is not set; else what is missing is fetched, several files at
// a time. Errors:
//   NOT_FOUND             there is no such model, revision, or file without which none is served;
//                         offline, it is not in the cache
//   UNAUTHENTICATED, PERMISSION_DENIED   a token is missing, or does not do
//   UNAVAILABLE           the hub does not answer, after all tries
//   DATA_LOSS             what came is not what the hub told; nothing of it is kept
//   others                the cache's folder cannot be written
absl::StatusOr<std::string> FetchModel(const HubOptions& options, const ModelName& name,
                                       const FetchObserver& observer);

// What `--model` says: a folder, by path or by file://PATH, or else a model's name, which is
// fetched. Of a folder `name` is empty. INVALID_ARGUMENT where it can be neither.
struct ResolvedModel {
  std::string dir;
  std::string name;  // ORGANIZATION/NAME
};
absl::StatusOr<ResolvedModel> ResolveModel(absl::string_view model, const FetchObserver& observer);

// Without the network: that error of ResolveModel, if it is certain already.
absl::Status CheckModel(absl::string_view model);

}  // namespace quiver

#endif  // QUIVER_SERVER_HUB_FETCH_MODEL_H_
