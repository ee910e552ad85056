#include "tools/quiver/index_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"

namespace quiver {
namespace {

constexpr size_t kBarWidth = 20;

std::string Bar(double part) {
  const auto filled = static_cast<size_t>(part * kBarWidth);
  return absl::StrCat("[", std::string(filled, '='), std::string(kBarWidth - filled, ' '), "]");
}

}  // namespace

IndexReport::IndexReport() : begin_(absl::Now()) {}

double IndexReport::Seconds() const {
  return std::max(1e-9, absl::ToDoubleSeconds(absl::Now() - begin_));
}

void IndexReport::Update(const index::IndexProgress& progress) {
  if (first_part_ < 0 && progress.new_rows > 0) {
    first_part_ = progress.part;
    first_time_ = absl::Now();
  }
  shown_.Update(Line(progress));
}

std::string IndexReport::Line(const index::IndexProgress& progress) {
  const double seconds = Seconds();
  std::string line;
  if (progress.part >= 0) {
    line = absl::StrFormat("%s %3.0f%%  ", Bar(progress.part), progress.part * 100);
  }
  absl::StrAppendFormat(&line, "%d rows, %.0f/s, %.0f tokens/s, %d rejected", progress.done.rows,
                        static_cast<double>(progress.new_rows) / seconds,
                        static_cast<double>(progress.new_tokens) / seconds, progress.done.rejects);
  if (first_part_ >= 0 && progress.part > first_part_) {
    const absl::Duration left =
        (absl::Now() - first_time_) * ((1 - progress.part) / (progress.part - first_part_));
    absl::StrAppend(&line, ", ", absl::FormatDuration(absl::Trunc(left, absl::Seconds(1))),
                    " left");
  }
  return line;
}

std::string IndexReport::Summary(const index::IndexProgress& progress) const {
  const double seconds = Seconds();
  return absl::StrFormat(
      "%d rows of %d documents, %d rejected; %d rows in this run, %.1f s, %.0f rows/s, %.0f "
      "tokens/s",
      progress.done.rows, progress.done.documents, progress.done.rejects, progress.new_rows,
      seconds, static_cast<double>(progress.new_rows) / seconds,
      static_cast<double>(progress.new_tokens) / seconds);
}

std::string IndexReport::SummaryJson(const index::IndexProgress& progress, bool complete) const {
  const double seconds = Seconds();
  const nlohmann::json summary = {
      {"complete", complete},
      {"documents", progress.done.documents},
      {"rows", progress.done.rows},
      {"rejects", progress.done.rejects},
      {"new_rows", progress.new_rows},
      {"new_tokens", progress.new_tokens},
      {"seconds", seconds},
      {"rows_per_s", static_cast<double>(progress.new_rows) / seconds},
      {"tokens_per_s", static_cast<double>(progress.new_tokens) / seconds}};
  return summary.dump() + "\n";
}

}  // namespace quiver
