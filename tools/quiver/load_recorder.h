#ifndef QUIVER_TOOLS_QUIVER_LOAD_RECORDER_H_
#define QUIVER_TOOLS_QUIVER_LOAD_RECORDER_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "tools/quiver/workload.h"

namespace quiver {

// Goes on evenly whatever happens to the time of day.
using LoadClock = std::chrono::steady_clock;

// The part of a load test that counts: without its beginning, when queues fill up, and its end.
struct LoadWindow {
  LoadClock::time_point begin;
  LoadClock::time_point end;

  bool Holds(LoadClock::time_point time) const { return begin <= time && time < end; }
  double seconds() const { return std::chrono::duration<double>(end - begin).count(); }
};

// What became of a request.
struct RequestOutcome {
  // When it was to be sent, and when that was done.
  LoadClock::time_point due;
  LoadClock::time_point sent;
  LoadClock::time_point answered;
  int items = 0;
  // Of those that gave a vector.
  int items_ok = 0;
  int64_t tokens_ok = 0;
  // The others.
  std::map<absl::StatusCode, int> failures = {};
};

// What a workload's requests came to. Latencies count from when a request was due, so that a
// request which had to wait before it was sent has waited.
struct LoadResult {
  Workload workload;
  double seconds = 0;
  // Requests that were due in the window.
  int64_t requests = 0;
  // Items of requests answered in the window, their tokens, and those of requests within `target`.
  int64_t items = 0;
  int64_t tokens = 0;
  int64_t good_items = 0;
  // Items without a vector, of requests that were due in the window.
  std::map<absl::StatusCode, int64_t> failures;
  // Of requests due in the window, in ms, ascending: with a vector for each item; with none at all;
  // and from when any was due to when it was sent.
  std::vector<float> latency_ms;
  std::vector<float> refusal_ms;
  std::vector<float> lateness_ms;
};

// The value below which `part` of the sorted values lie (nearest rank); 0 of none.
double Quantile(const std::vector<float>& sorted, double part);

// Thread-safe.
class LoadRecorder {
 public:
  LoadRecorder(const Workload& workload, const LoadWindow& window);

  void Add(const RequestOutcome& outcome);
  // After the last Add.
  LoadResult Take();

 private:
  const LoadWindow window_;
  absl::Mutex mutex_;
  LoadResult result_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_LOAD_RECORDER_H_
