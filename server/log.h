// Structured logs: a message and fields, one line each, on stderr.
//
//   text  2026-11-25T00:50:07.123456Z INFO serving model=all-MiniLM-L6-v2 grpc=127.0.0.1:50051
//   JSON  {"time":"2026-11-25T00:50:07.123456Z","level":"info","message":"serving","model":"...
//
// Neither what is to be embedded nor a secret is ever logged.
#ifndef QUIVER_SERVER_LOG_H_
#define QUIVER_SERVER_LOG_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <thread>
#include <type_traits>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace quiver {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };
enum class LogFormat : uint8_t { kText, kJson };

// Messages and names are ours and need no escaping; values may hold anything. Durations are in
// seconds.
struct LogField {
  template <typename T>
  LogField(absl::string_view field_name, const T& field_value) : name(field_name) {
    if constexpr (std::is_same_v<T, absl::Duration>) {
      value = absl::ToDoubleSeconds(field_value);
    } else if constexpr (std::is_same_v<T, bool>) {
      value = field_value;
    } else if constexpr (std::is_integral_v<T>) {
      value = static_cast<int64_t>(field_value);
    } else if constexpr (std::is_floating_point_v<T>) {
      value = static_cast<double>(field_value);
    } else {
      value = absl::string_view(field_value);
    }
  }

  absl::string_view name;
  std::variant<absl::string_view, int64_t, double, bool> value;
};

// One line, newline included. Values that are not plain are JSON strings in the text form too, so
// that a line stays one line and a terminal gets ASCII only; bytes that are not UTF-8 become
// U+FFFD.
std::string FormatLogLine(LogFormat format, absl::Time time, LogLevel level,
                          absl::string_view message, std::initializer_list<LogField> fields);

// Thread-safe. Lines are written by a thread of its own, so that a reader of stderr who stops
// reading stops nothing else; past kMaxPending bytes lines are dropped, and counted in a later one.
class Logger {
 public:
  struct Options {
    LogFormat format = LogFormat::kText;
    LogLevel level = LogLevel::kInfo;
    // Where to; not closed.
    int fd = 2;
  };
  static constexpr size_t kMaxPending = size_t{1} << 20;

  explicit Logger(Options options);
  // Writes what is pending, for at most a second.
  ~Logger();

  Logger(const Logger&) = delete;
  Logger& operator=(const Logger&) = delete;

  bool enabled(LogLevel level) const { return level >= options_.level; }

  void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields);

  void Debug(absl::string_view message, std::initializer_list<LogField> fields = {}) {
    Log(LogLevel::kDebug, message, fields);
  }
  void Info(absl::string_view message, std::initializer_list<LogField> fields = {}) {
    Log(LogLevel::kInfo, message, fields);
  }
  void Warning(absl::string_view message, std::initializer_list<LogField> fields = {}) {
    Log(LogLevel::kWarning, message, fields);
  }
  void Error(absl::string_view message, std::initializer_list<LogField> fields = {}) {
    Log(LogLevel::kError, message, fields);
  }

  // Waits until everything logged before is written, or `timeout` passes.
  void Flush(absl::Duration timeout);

 private:
  void Write();
  // Writes `text` as far as the descriptor takes it; gives up once abandoned_.
  void WriteAll(absl::string_view text);

  const Options options_;
  absl::Mutex mutex_;
  std::string pending_ ABSL_GUARDED_BY(mutex_);
  int64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<bool> abandoned_{false};
  std::thread writer_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_LOG_H_
