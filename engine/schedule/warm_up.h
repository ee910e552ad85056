#ifndef QUIVER_ENGINE_SCHEDULE_WARM_UP_H_
#define QUIVER_ENGINE_SCHEDULE_WARM_UP_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/run/backend.h"
#include "engine/schedule/cost_model.h"
#include "engine/schedule/prefix_cache.h"

namespace quiver {

// Runs passes of growing size on a backend that nobody uses yet, so that no request pays for what
// happens the first time, and teaches `cost` what they took. Stops growing where that would last
// for more than about a third of a second. The error of a pass that fails or throws, or the first
// one of a sequence if no sequence of any pass gave a vector.
absl::Status WarmUp(Backend* backend, int vocabulary_size, CostModel* cost);

// Has a backend that nobody uses yet keep the keys and values of `prefixes`, as far as there is
// room for them. The error of a pass that fails or of a prefix that gives no vector.
absl::Status StorePrefixes(Backend* backend, absl::Span<const std::vector<TokenId>> prefixes,
                           PrefixCache* cache);

}  // namespace quiver

#endif  // QUIVER_ENGINE_SCHEDULE_WARM_UP_H_
