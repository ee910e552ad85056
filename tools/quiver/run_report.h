// What a person at the terminal sees of a run.
#ifndef QUIVER_TOOLS_QUIVER_RUN_REPORT_H_
#define QUIVER_TOOLS_QUIVER_RUN_REPORT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tools/quiver/executor.h"
#include "tools/quiver/input_source.h"
#include "tools/quiver/result_writer.h"

namespace quiver {

// Counts items, says which failed, and shows progress if standard error is a terminal and the
// results do not go to one.
class RunReport {
 public:
  explicit RunReport(bool results_on_stdout);
  ~RunReport();

  void Count(const InputItem& item, const absl::Status& status);
  // The exit code of a run that ended with `status`; says what failed.
  int Finish(const absl::Status& status);

 private:
  void ShowProgress();
  void ClearProgress();

  const bool live_;
  const absl::Time start_;
  absl::Time next_update_;
  bool shown_ = false;
  uint64_t items_ = 0;
  uint64_t failed_ = 0;
};

// Hands everything on to a writer, and counts it.
template <typename Result>
class ReportingSink : public ResultSink<Result> {
 public:
  ReportingSink(ResultWriter<Result>* writer, RunReport* report)
      : writer_(writer), report_(report) {}

  absl::Status Begin(int dimensions) override { return writer_->Begin(dimensions); }
  absl::Status Put(const InputItem& item, const absl::StatusOr<Result>& result) override {
    report_->Count(item, result.status());
    return writer_->Put(item, result);
  }
  absl::Status Flush() override { return writer_->Flush(); }

 private:
  ResultWriter<Result>* const writer_;
  RunReport* const report_;
};

// Ends a run that wrote to `writer`: the exit code.
template <typename Result>
int FinishRun(absl::Status status, ResultWriter<Result>* writer, RunReport* report) {
  // What was written of a run that failed is worth having as far as it goes.
  const absl::Status written = status.ok() ? writer->Close() : writer->Flush();
  status.Update(written);
  return report->Finish(status);
}

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_RUN_REPORT_H_
