#include "server/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "server/metric_names.h"

namespace quiver {
namespace {

std::string ReadAll(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// When the machine was booted, or 0.
int64_t BootSeconds() {
  for (absl::string_view line : absl::StrSplit(ReadAll("/proc/stat"), '\n')) {
    int64_t seconds = 0;
    if (absl::ConsumePrefix(&line, "btime ") && absl::SimpleAtoi(line, &seconds)) return seconds;
  }
  return 0;
}

int64_t CountOpenFds() {
  std::error_code error;
  std::filesystem::directory_iterator fds("/proc/self/fd", error);
  int64_t count = 0;
  for (; !error && fds != std::filesystem::directory_iterator(); fds.increment(error)) ++count;
  // One of them is the iterator's.
  return std::max<int64_t>(0, count - 1);
}

}  // namespace

ProcessState ReadProcessState() {
  ProcessState state;
  rusage usage = {};
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    state.cpu_time =
        absl::DurationFromTimeval(usage.ru_utime) + absl::DurationFromTimeval(usage.ru_stime);
  }
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) state.max_fds = static_cast<int64_t>(limit.rlim_cur);
  state.open_fds = CountOpenFds();

  // proc(5): the second field is the program's name in brackets, which may hold anything.
  const std::string stat = ReadAll("/proc/self/stat");
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(stat).substr(std::min(stat.rfind(')') + 1, stat.size())),
                     ' ', absl::SkipEmpty());
  // Counted from 1 as in the manual, where the first after the name is 3.
  const auto field = [&fields](size_t number) {
    int64_t value = 0;
    return number - 3 < fields.size() && absl::SimpleAtoi(fields[number - 3], &value) ? value : 0;
  };
  state.threads = field(20);
  state.start_time =
      absl::FromUnixSeconds(BootSeconds()) +
      absl::Seconds(static_cast<double>(field(22)) / static_cast<double>(sysconf(_SC_CLK_TCK)));
  state.virtual_bytes = field(23);
  state.resident_bytes = field(24) * sysconf(_SC_PAGESIZE);
  return state;
}

ProcessMetrics::ProcessMetrics(prometheus::Registry* registry)
    : cpu_seconds_(
          &AddCounters(registry, "process_cpu_seconds_total", "User and system CPU time spent.")
               .Add({})),
      resident_bytes_(
          &AddGauges(registry, "process_resident_memory_bytes", "Resident memory.").Add({})),
      virtual_bytes_(
          &AddGauges(registry, "process_virtual_memory_bytes", "Virtual memory.").Add({})),
      threads_(&AddGauges(registry, "process_threads", "Threads.").Add({})),
      open_fds_(&AddGauges(registry, "process_open_fds", "Open file descriptors.").Add({})),
      max_fds_(&AddGauges(registry, "process_max_fds", "File descriptors allowed.").Add({})),
      start_time_(&AddGauges(registry, "process_start_time_seconds",
                             "When the process started, since the Unix epoch.")
                       .Add({})) {
  Refresh();
}

void ProcessMetrics::Refresh() {
  const ProcessState state = ReadProcessState();
  cpu_seconds_->Increment(
      std::max(0.0, absl::ToDoubleSeconds(state.cpu_time) - cpu_seconds_->Value()));
  resident_bytes_->Set(static_cast<double>(state.resident_bytes));
  virtual_bytes_->Set(static_cast<double>(state.virtual_bytes));
  threads_->Set(static_cast<double>(state.threads));
  open_fds_->Set(static_cast<double>(state.open_fds));
  max_fds_->Set(static_cast<double>(state.max_fds));
  start_time_->Set(absl::ToDoubleSeconds(state.start_time - absl::UnixEpoch()));
}

}  // namespace quiver
