#include "tools/quiver/find_model.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tools/quiver/progress.h"

namespace quiver {

FetchObserver ShowFetching(Progress* progress) {
  const absl::Time begin = absl::Now();
  return [progress, begin](const FetchProgress& now) {
    const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
    const double megabytes = static_cast<double>(now.bytes_done) * 1e-6;
    const double total = static_cast<double>(now.bytes) * 1e-6;
    const double rate = seconds > 0 ? megabytes / seconds : 0;
    std::string text = absl::StrFormat("fetching: %d of %d files, %.1f of %.1f MB, %.1f MB/s",
                                       now.files_done, now.files, megabytes, total, rate);
    if (rate > 0 && total > megabytes) {
      absl::StrAppendFormat(&text, ", %.0f s left", (total - megabytes) / rate);
    }
    progress->Update(text);
  };
}

absl::StatusOr<ResolvedModel> FindModel(const std::string& model) {
  Progress progress;
  return ResolveModel(model, ShowFetching(&progress));
}

}  // namespace quiver
