#include "kernels/cpu/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quiver::cpu {
namespace {

constexpr auto kSpinTime = std::chrono::microseconds(50);

// Set while this thread runs a loop body.
thread_local bool inside_loop = false;

void CpuRelax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Spins until `done()` or kSpinTime is over; returns done().
template <typename Done>
bool SpinUntil(Done done) {
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < 64; ++i) {
      if (done()) return true;
      CpuRelax();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return done();
}

int AffinityCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  // More cores than a cpu_set_t holds.
  return static_cast<int>(std::thread::hardware_concurrency());
}

// Cores that "max" or "<quota us> <period us>" stands for; infinity if there is no limit.
double QuotaCores(const std::string& text) {
  std::istringstream stream(text);
  double quota = 0;
  double period = 0;
  if (stream >> quota >> period && quota > 0 && period > 0) return quota / period;
  return std::numeric_limits<double>::infinity();
}

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

double CgroupCores() {
  double cores = std::numeric_limits<double>::infinity();
  std::ifstream cgroups("/proc/self/cgroup");
  std::string line;
  while (std::getline(cgroups, line)) {
    // "0::/path" is version 2, "3:cpu,cpuacct:/path" version 1.
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool v2 = controllers == ",,";
    if (!v2 && controllers.find(",cpu,") == std::string::npos) continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
    // Every ancestor may set a limit. Inside a container the path may be the host's, and only the
    // root is there.
    for (std::string path = line.substr(second + 1);;) {
      const std::string dir = root + (path == "/" ? "" : path);
      cores = std::min(cores, QuotaCores(v2 ? FirstLine(dir + "/cpu.max")
                                            : FirstLine(dir + "/cpu.cfs_quota_us") + " " +
                                                  FirstLine(dir + "/cpu.cfs_period_us")));
      if (path.empty() || path == "/") break;
      path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
    }
  }
  return cores;
}

}  // namespace

int AvailableCores() {
  const int affinity = std::max(1, AffinityCores());
  const double quota = CgroupCores();
  return quota >= affinity ? affinity : std::max(1, static_cast<int>(std::floor(quota)));
}

ThreadPool::ThreadPool(int num_threads) {
  for (int i = 1; i < num_threads; ++i) workers_.emplace_back([this] { WorkerLoop(); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(int64_t count, Call call, void* context) {
  std::unique_lock<std::mutex> lock(running_, std::defer_lock);
  if (count <= 1 || workers_.empty() || inside_loop || !lock.try_lock()) {
    for (int64_t i = 0; i < count; ++i) call(context, i);
    return;
  }
  call_ = call;
  context_ = context;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  active_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  Drain();
  const auto all_left = [this] { return active_.load(std::memory_order_acquire) == 0; };
  if (SpinUntil(all_left)) return;
  for (int active = active_.load(std::memory_order_acquire); active != 0;
       active = active_.load(std::memory_order_acquire)) {
    active_.wait(active, std::memory_order_acquire);
  }
}

void ThreadPool::WorkerLoop() {
  uint32_t seen = 0;
  while (true) {
    const auto changed = [this, &seen] { return epoch_.load(std::memory_order_acquire) != seen; };
    if (!SpinUntil(changed)) epoch_.wait(seen, std::memory_order_acquire);
    seen = epoch_.load(std::memory_order_acquire);
    if (stopping_.load()) return;
    Drain();
    if (active_.fetch_sub(1, std::memory_order_release) == 1) active_.notify_one();
  }
}

void ThreadPool::Drain() {
  inside_loop = true;
  while (true) {
    const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= count_) break;
    call_(context_, i);
  }
  inside_loop = false;
}

}  // namespace quiver::cpu
