#include "tools/quiver/doctor_checks.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"

namespace quiver {
namespace {

constexpr int64_t kKiB = 1024;
constexpr int64_t kGiB = int64_t{1} << 30;
// A small model and its batches.
constexpr int64_t kLittleMemory = kGiB;
// A thousand connections, each with a descriptor at both doors, and room.
constexpr uint64_t kFewOpenFiles = 4096;

// A line "KEY   VALUE kB" of /proc/meminfo in bytes, or -1.
int64_t MemInfo(const std::string& key) {
  std::ifstream file("/proc/meminfo");
  std::string name;
  for (int64_t value; file >> name >> value; file.ignore(64, '\n')) {
    if (name == absl::StrCat(key, ":")) return value * kKiB;
  }
  return -1;
}

// The number in a file, or -1 ("max", no such file).
int64_t NumberIn(const std::string& path) {
  std::ifstream file(path);
  int64_t value;
  return file >> value ? value : -1;
}

// The number behind `key` in a file of lines "KEY VALUE", or 0.
int64_t NumberBehind(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string name;
  for (int64_t value; file >> name >> value;) {
    if (name == key) return value;
  }
  return 0;
}

// Where the two versions of control groups keep what a group may take and has taken. Of the latter,
// cached files that were not used lately are given back when memory is wanted.
struct GroupFiles {
  const char* limit;
  const char* used;
  const char* statistics;
  const char* cache_key;
};
constexpr GroupFiles kGroupFiles[] = {
    {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat",
     "inactive_file"},
    {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes",
     "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file"},
};

}  // namespace

std::string HumanBytes(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (bytes >= kGiB) return absl::StrFormat("%.1f GiB", value / kGiB);
  return absl::StrFormat("%.0f MiB", value / (kKiB * kKiB));
}

int64_t AvailableMemoryBytes() {
  int64_t available = MemInfo("MemAvailable");
  for (const GroupFiles& group : kGroupFiles) {
    const int64_t limit = NumberIn(group.limit);
    if (limit < 0) continue;
    const int64_t used = NumberIn(group.used) - NumberBehind(group.statistics, group.cache_key);
    available = std::min(available, std::max<int64_t>(limit - used, 0));
  }
  return available;
}

Finding CheckCpu() {
  const cpu::Isa isa = cpu::BestIsa();
  Finding finding{.name = "cpu",
                  .verdict = Verdict::kOk,
                  .detail = absl::StrCat(cpu::IsaName(isa), ", ", cpu::AvailableCores(), " of ",
                                         sysconf(_SC_NPROCESSORS_ONLN), " cores usable"),
                  .advice = ""};
  if (isa == cpu::Isa::kGeneric) {
    finding.verdict = Verdict::kWarning;
    finding.advice =
        "without AVX2 embedding is many times slower; take a CPU that has it, or a GPU "
        "(and leave QUIVER_CPU_ISA unset)";
  }
  return finding;
}

Finding CheckMemory() {
  const int64_t available = AvailableMemoryBytes();
  Finding finding{.name = "memory",
                  .verdict = Verdict::kOk,
                  .detail = absl::StrCat(HumanBytes(available), " available of ",
                                         HumanBytes(MemInfo("MemTotal"))),
                  .advice = ""};
  if (available < kLittleMemory) {
    finding.verdict = Verdict::kWarning;
    finding.advice =
        "enough for the smallest models only; raise the container's limit or free some";
  }
  return finding;
}

Finding CheckOpenFiles() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  Finding finding{
      .name = "open files",
      .verdict = Verdict::kOk,
      .detail = absl::StrCat("up to ", limit.rlim_cur, " (hard limit ", limit.rlim_max, ")"),
      .advice = ""};
  if (limit.rlim_cur < kFewOpenFiles) {
    finding.verdict = Verdict::kWarning;
    finding.advice = absl::StrCat("too few for many connections: ulimit -n ",
                                  std::min<uint64_t>(limit.rlim_max, 65536));
  }
  return finding;
}

Finding CheckPort(const std::string& door, int port) {
  Finding finding{.name = absl::StrCat("port ", port),
                  .verdict = Verdict::kOk,
                  .detail = absl::StrCat("free for ", door),
                  .advice = ""};
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // As servers do, so that connections that were closed lately do not count.
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    finding.verdict = Verdict::kWarning;
    finding.detail = absl::StrCat("not free for ", door, ": ", std::strerror(errno));
    finding.advice = absl::StrCat("stop what listens there, or start quiver-server with --",
                                  absl::AsciiStrToLower(door), "-port and another port");
  }
  close(fd);
  return finding;
}

}  // namespace quiver
