#ifndef QUIVER_SERVER_HUB_MODEL_NAME_H_
#define QUIVER_SERVER_HUB_MODEL_NAME_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace quiver {

// A model of a Hugging Face hub.
struct ModelName {
  // ORGANIZATION/NAME.
  std::string repo;
  // A branch, a tag or a commit.
  std::string revision = "main";
};

// Reads ORGANIZATION/NAME or ORGANIZATION/NAME@REVISION. INVALID_ARGUMENT says what form it must
// have; no name that is taken leads out of the cache's folders.
absl::StatusOr<ModelName> ParseModelName(absl::string_view text);

// INVALID_ARGUMENT unless `revision` may be a branch's, a tag's or a commit's name.
absl::Status CheckRevision(absl::string_view revision);

// Whether `text` is a whole commit: 40 lowercase hexadecimal digits.
bool IsCommit(absl::string_view text);

}  // namespace quiver

#endif  // QUIVER_SERVER_HUB_MODEL_NAME_H_
