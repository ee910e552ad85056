#include "server/served_model.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/schedule/scheduler.h"

namespace quiver {
namespace {

constexpr absl::Duration kLoadingRetry = absl::Seconds(1);
constexpr size_t kShownNameBytes = 128;

}  // namespace

absl::StatusOr<Embedder*> ServedModel::Find(absl::string_view model) const {
  if (draining()) return absl::UnavailableError("the server is shutting down");
  Embedder* embedder = state_.embedder();
  if (embedder == nullptr) {
    absl::Status status = absl::UnavailableError("the model is being loaded");
    SetRetryDelay(&status, kLoadingRetry);
    return status;
  }
  const std::string& name = embedder->info().name;
  if (model.empty() || model == name ||
      std::find(aliases_.begin(), aliases_.end(), model) != aliases_.end()) {
    return embedder;
  }
  return absl::NotFoundError(absl::StrCat("model: \"", model.substr(0, kShownNameBytes),
                                          "\" is not served here; \"", name, "\" is"));
}

}  // namespace quiver
