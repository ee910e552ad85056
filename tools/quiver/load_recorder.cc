#include "tools/quiver/load_recorder.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace quiver {
namespace {

float Milliseconds(LoadClock::duration duration) {
  return std::chrono::duration<float, std::milli>(duration).count();
}

}  // namespace

double Quantile(const std::vector<float>& sorted, double part) {
  if (sorted.empty()) return 0;
  const double rank = std::ceil(part * static_cast<double>(sorted.size()));
  const auto index = static_cast<size_t>(std::max(0.0, rank - 1));
  return sorted[std::min(index, sorted.size() - 1)];
}

LoadRecorder::LoadRecorder(const Workload& workload, const LoadWindow& window) : window_(window) {
  absl::MutexLock lock(&mutex_);
  result_.workload = workload;
  result_.seconds = window.seconds();
}

void LoadRecorder::Add(const RequestOutcome& outcome) {
  absl::MutexLock lock(&mutex_);
  const float latency_ms = Milliseconds(outcome.answered - outcome.due);
  if (window_.Holds(outcome.answered)) {
    result_.items += outcome.items_ok;
    result_.tokens += outcome.tokens_ok;
    if (latency_ms <= absl::ToDoubleMilliseconds(result_.workload.target)) {
      result_.good_items += outcome.items_ok;
    }
  }
  if (!window_.Holds(outcome.due)) return;
  ++result_.requests;
  for (const auto& [code, count] : outcome.failures) result_.failures[code] += count;
  if (outcome.items_ok == outcome.items) result_.latency_ms.push_back(latency_ms);
  if (outcome.items_ok == 0) result_.refusal_ms.push_back(latency_ms);
  result_.lateness_ms.push_back(Milliseconds(outcome.sent - outcome.due));
}

LoadResult LoadRecorder::Take() {
  absl::MutexLock lock(&mutex_);
  for (auto* values : {&result_.latency_ms, &result_.refusal_ms, &result_.lateness_ms}) {
    std::sort(values->begin(), values->end());
  }
  return std::move(result_);
}

}  // namespace quiver
