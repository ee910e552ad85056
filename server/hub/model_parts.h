// Which of a model's files serving it takes.
#ifndef QUIVER_SERVER_HUB_MODEL_PARTS_H_
#define QUIVER_SERVER_HUB_MODEL_PARTS_H_

#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/hub/hub_cache.h"

namespace quiver {

// What a commit has of what is needed.
struct ModelParts {
  std::vector<std::string> present;
  // Files that a model need not have, and this one has not.
  std::vector<std::string> absent;
};

// Of the files that a commit has: config, tokenizer, weights, and what sentence-transformers says
// of pooling and prompts. NOT_FOUND names the file without which no model is served.
absl::StatusOr<ModelParts> ChooseParts(const std::set<std::string>& files);

// How much of them the cache has.
enum class Holding {
  // All.
  kWhole,
  // What no model is without; nobody knows whether the commit has the others.
  kEnough,
  // Less.
  kPart,
};
struct CachedParts {
  Holding holding = Holding::kPart;
  // The first file that is missing, or unknown.
  std::string file;
};
CachedParts FindParts(const HubCache& cache, absl::string_view commit);

}  // namespace quiver

#endif  // QUIVER_SERVER_HUB_MODEL_PARTS_H_
