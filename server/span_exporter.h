// From the requests that are sampled to a collector of traces, without ever holding a request up.
#ifndef QUIVER_SERVER_SPAN_EXPORTER_H_
#define QUIVER_SERVER_SPAN_EXPORTER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/random/random.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/log.h"
#include "server/otlp_json.h"
#include "server/request_observer.h"

namespace quiver {

// The way to a collector. For one thread.
class SpanSender {
 public:
  struct Result {
    enum class Kind : uint8_t { kSent, kTryAgain, kRefused };
    Kind kind = Kind::kSent;
    // Of kTryAgain: the wait that the collector asks for; zero if it does not say.
    absl::Duration retry_after = {};
    // Of kSent: spans that the collector did not want.
    int64_t rejected_spans = 0;
    // Of the others: why.
    std::string error = {};
  };
  // When to give up; may come nearer while Send waits.
  using Deadline = std::function<absl::Time()>;

  virtual ~SpanSender() = default;
  // Waits for the answer; kTryAgain if none comes by `deadline`.
  virtual Result Send(const std::string& body, const Deadline& deadline) = 0;
};

// Keeps what was added in a queue that has a bound, and sends it from a thread of its own.
// Thread-safe.
class SpanExporter {
 public:
  struct Options {
    // More are dropped.
    size_t max_queued_spans = 1 << 14;
    // Of one message: about a megabyte.
    size_t max_message_spans = 2048;
    // Longest time that a span waits for company.
    absl::Duration interval = absl::Seconds(1);
    absl::Duration send_timeout = absl::Seconds(10);
    // After a failure that may pass: the first wait and the longest, twice as long each time, of
    // which a random part between half and all is waited. A message is given up after so many
    // tries.
    absl::Duration first_wait = absl::Seconds(1);
    absl::Duration max_wait = absl::Seconds(30);
    int max_tries = 5;
  };
  // Spans by what became of them: taken by the collector, refused by it or given up, or never sent
  // because the queue was full or the process ended.
  struct Stats {
    int64_t exported = 0;
    int64_t failed = 0;
    int64_t dropped = 0;
  };

  // `logger` is told when exporting begins to fail and when it works again; must outlive this.
  SpanExporter(Options options, OtlpEncoder encoder, std::unique_ptr<SpanSender> sender,
               Logger* logger);
  // As Stop(now).
  ~SpanExporter();

  // The spans of one request that has ended. Never waits for the collector.
  void Add(const RequestReport& report);

  // Sends what is queued, once, until `deadline`; what is left then is dropped, as is what comes
  // later. Waits; a name server that does not answer may make it wait longer.
  void Stop(absl::Time deadline);

  Stats stats() const { return {exported_.load(), failed_.load(), dropped_.load()}; }

 private:
  using Requests = std::vector<std::unique_ptr<const RequestReport>>;

  void Run();
  bool IsFull() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return queued_spans_ >= options_.max_message_spans;
  }
  // Waits for a message's worth; empty if there will be no more.
  Requests Take();
  void Export(const Requests& requests);
  // Whether to try again after `result`, the `tries`th; then it has waited.
  bool WaitToRetry(const SpanSender::Result& result, int tries);
  void LogState(const SpanSender::Result& result);

  const Options options_;
  const OtlpEncoder encoder_;
  const std::unique_ptr<SpanSender> sender_;
  Logger& logger_;
  absl::BitGen random_;
  bool failing_ = false;
  std::atomic<int64_t> exported_{0};
  std::atomic<int64_t> failed_{0};
  std::atomic<int64_t> dropped_{0};

  mutable absl::Mutex mutex_;
  std::deque<Requests::value_type> queue_ ABSL_GUARDED_BY(mutex_);
  size_t queued_spans_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time stop_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  // Rather than a condition of the mutex, which each request's unlock would evaluate.
  absl::CondVar wake_;
  std::thread thread_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_SPAN_EXPORTER_H_
