#include "server/log.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/json_string.h"

namespace quiver {
namespace {

absl::string_view LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "";
}

bool IsPlain(absl::string_view text) {
  for (char c : text) {
    if (!absl::ascii_isgraph(static_cast<unsigned char>(c)) || c == '"' || c == '=' || c == '\\') {
      return false;
    }
  }
  return !text.empty();
}

void AppendValue(std::string* line, LogFormat format, const LogField& field) {
  if (const auto* text = std::get_if<absl::string_view>(&field.value)) {
    absl::StrAppend(line, format == LogFormat::kText && IsPlain(*text) ? *text : JsonString(*text));
  } else if (const auto* integer = std::get_if<int64_t>(&field.value)) {
    absl::StrAppend(line, *integer);
  } else if (const auto* real = std::get_if<double>(&field.value)) {
    // JSON has no infinity.
    absl::StrAppend(line, std::isfinite(*real) ? absl::StrFormat("%.9g", *real) : "null");
  } else {
    absl::StrAppend(line, std::get<bool>(field.value) ? "true" : "false");
  }
}

}  // namespace

std::string FormatLogLine(LogFormat format, absl::Time time, LogLevel level,
                          absl::string_view message, std::initializer_list<LogField> fields) {
  const std::string stamp = absl::FormatTime("%Y-%m-%d%ET%H:%M:%E6SZ", time, absl::UTCTimeZone());
  std::string line;
  if (format == LogFormat::kJson) {
    absl::StrAppend(&line, "{\"time\":\"", stamp, "\",\"level\":\"", LevelName(level),
                    "\",\"message\":", JsonString(message));
    for (const LogField& field : fields) {
      absl::StrAppend(&line, ",\"", field.name, "\":");
      AppendValue(&line, format, field);
    }
    line.push_back('}');
  } else {
    absl::StrAppend(&line, stamp, " ", absl::AsciiStrToUpper(LevelName(level)), " ", message);
    for (const LogField& field : fields) {
      absl::StrAppend(&line, " ", field.name, "=");
      AppendValue(&line, format, field);
    }
  }
  line.push_back('\n');
  return line;
}

Logger::Logger(Options options) : options_(options), writer_([this] { Write(); }) {}

Logger::~Logger() {
  Flush(absl::Seconds(1));
  abandoned_ = true;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  writer_.join();
}

void Logger::Log(LogLevel level, absl::string_view message,
                 std::initializer_list<LogField> fields) {
  if (!enabled(level)) return;
  const std::string line = FormatLogLine(options_.format, absl::Now(), level, message, fields);
  absl::MutexLock lock(&mutex_);
  if (pending_.size() + line.size() > kMaxPending) {
    ++dropped_;
    return;
  }
  pending_ += line;
}

void Logger::Flush(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto written = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return pending_.empty() && !writing_;
  };
  mutex_.AwaitWithTimeout(absl::Condition(&written), timeout);
}

void Logger::Write() {
  const auto woken = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !pending_.empty() || stopping_;
  };
  absl::MutexLock lock(&mutex_, absl::Condition(&woken));
  while (!pending_.empty()) {
    std::string text;
    text.swap(pending_);
    if (const int64_t dropped = std::exchange(dropped_, 0); dropped > 0) {
      text +=
          FormatLogLine(options_.format, absl::Now(), LogLevel::kWarning,
                        "log lines dropped: stderr is not read fast enough", {{"lines", dropped}});
    }
    writing_ = true;
    mutex_.Unlock();
    WriteAll(text);
    mutex_.Lock();
    writing_ = false;
    mutex_.Await(absl::Condition(&woken));
  }
}

void Logger::WriteAll(absl::string_view text) {
  while (!text.empty() && !abandoned_) {
    // Waiting in poll rather than in write lets the destructor give up.
    pollfd writable = {options_.fd, POLLOUT, 0};
    const int ready = poll(&writable, 1, /*timeout_ms=*/100);
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    // A pipe that is writable takes PIPE_BUF bytes at once.
    const ssize_t written = write(options_.fd, text.data(), std::min<size_t>(text.size(), 4096));
    if (written > 0) {
      text.remove_prefix(static_cast<size_t>(written));
    } else if (written < 0 && errno != EINTR && errno != EAGAIN) {
      return;
    }
  }
}

}  // namespace quiver
