#include "tools/quiver/run_report.h"

#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "tools/quiver/command_line.h"
#include "tools/quiver/json_text.h"

namespace quiver {
namespace {

constexpr absl::Duration kUpdateInterval = absl::Milliseconds(200);

}  // namespace

RunReport::RunReport(bool results_on_stdout)
    : live_(isatty(STDERR_FILENO) && !(results_on_stdout && isatty(STDOUT_FILENO))),
      start_(absl::Now()),
      next_update_(start_ + kUpdateInterval) {}

RunReport::~RunReport() { ClearProgress(); }

void RunReport::Count(const InputItem& item, const absl::Status& status) {
  ++items_;
  if (!status.ok()) {
    ++failed_;
    ClearProgress();
    const std::string name = item.id_json.empty() ? "" : absl::StrCat(" (id ", item.id_json, ")");
    Say(absl::StrCat(item.place, name, ": ", absl::StatusCodeToString(status.code()), ": ",
                     ErrorText(status)));
  }
  if (live_ && absl::Now() >= next_update_) ShowProgress();
}

int RunReport::Finish(const absl::Status& status) {
  ClearProgress();
  if (!status.ok()) return ReportFailure(status);
  if (failed_ == 0) return kExitOk;
  Say(absl::StrCat(failed_, " of ", items_, items_ == 1 ? " item failed" : " items failed"));
  return kExitFailure;
}

void RunReport::ShowProgress() {
  const absl::Time now = absl::Now();
  const double rate = static_cast<double>(items_) / absl::ToDoubleSeconds(now - start_);
  absl::FPrintF(stderr, "\r%d items, %d failed, %.0f a second\x1b[K", items_, failed_, rate);
  next_update_ = now + kUpdateInterval;
  shown_ = true;
}

void RunReport::ClearProgress() {
  if (shown_) std::fputs("\r\x1b[K", stderr);
  shown_ = false;
}

}  // namespace quiver
