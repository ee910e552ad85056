#ifndef QUIVER_TOOLS_QUIVER_INDEX_REPORT_H_
#define QUIVER_TOOLS_QUIVER_INDEX_REPORT_H_

#include <string>

#include "absl/time/time.h"
#include "tools/index/indexer.h"
#include "tools/quiver/progress.h"

namespace quiver {

// What a person or a script sees of a run of `quiver index`.
class IndexReport {
 public:
  IndexReport();

  // Shows how far the run is, if it is time to.
  void Update(const index::IndexProgress& progress);
  // Wipes the progress.
  void End() { shown_.Clear(); }

  // "indexed 1200 rows of 1000 documents (12 rejected) in 3.2 s, 375 rows/s, 12000 tokens/s".
  std::string Summary(const index::IndexProgress& progress) const;
  // The same as an object on one line.
  std::string SummaryJson(const index::IndexProgress& progress, bool complete) const;

 private:
  double Seconds() const;
  std::string Line(const index::IndexProgress& progress);

  const absl::Time begin_;
  Progress shown_;
  // The part of the input that was done when rows first came: what earlier runs did.
  double first_part_ = -1;
  absl::Time first_time_;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_INDEX_REPORT_H_
