#ifndef QUIVER_SERVER_SERVED_MODEL_H_
#define QUIVER_SERVER_SERVED_MODEL_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/embedder.h"
#include "server/serving_state.h"

namespace quiver {

// The model as requests may call it, if it can be had now. Thread-safe.
class ServedModel {
 public:
  // `state` must outlive this. `aliases` are names beside the model's own.
  ServedModel(const ServingState* state, std::vector<std::string> aliases)
      : state_(*state), aliases_(std::move(aliases)) {}

  // The engine for a request that names `model`; any, if empty. UNAVAILABLE while it is loaded
  // (with the wait to try again after) or drained, NOT_FOUND for another name.
  absl::StatusOr<Embedder*> Find(absl::string_view model) const;

  bool draining() const { return state_.phase() == ServingState::Phase::kDraining; }
  const std::vector<std::string>& aliases() const { return aliases_; }

 private:
  const ServingState& state_;
  const std::vector<std::string> aliases_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_SERVED_MODEL_H_
