// A fixed set of threads for the CPU kernels.
#ifndef QUIVER_KERNELS_CPU_THREAD_POOL_H_
#define QUIVER_KERNELS_CPU_THREAD_POOL_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace quiver::cpu {

// Cores this process may use: those in its affinity mask, less where a cgroup's CPU quota (v1 or
// v2, rounded down) allows fewer. At least 1.
int AvailableCores();

// Runs loops on `num_threads` threads, the caller among them. Workers spin for some tens of
// microseconds after a loop, since the next one mostly follows at once, then sleep: an idle pool
// takes no CPU time.
//
// Which thread runs which index is not fixed, so a loop body must give the same result wherever it
// runs; every kernel here does. A loop started inside a loop body, or while another thread's loop
// is running, runs on the thread that started it.
class ThreadPool {
 public:
  // `num_threads` below 1 counts as 1, which starts no thread.
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(i) once for every i in [0, count), handed out one at a time; returns when all have
  // returned. `body` must not throw.
  template <typename Body>
  void ParallelFor(int64_t count, Body&& body) {
    Run(
        count,
        [](void* context, int64_t i) {
          (*static_cast<std::remove_reference_t<Body>*>(context))(i);
        },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Call = void (*)(void* context, int64_t i);

  void Run(int64_t count, Call call, void* context);
  void WorkerLoop();
  // Takes indices until none is left.
  void Drain();

  std::vector<std::thread> workers_;
  // Held by the thread whose loop is running.
  std::mutex running_;
  // The loop being run; written while no worker is inside it.
  Call call_ = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0;
  // Bumped to start a loop; workers wait for it to change.
  alignas(64) std::atomic<uint32_t> epoch_{0};
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<int64_t> next_{0};
  // Workers that have not yet left the loop.
  alignas(64) std::atomic<int> active_{0};
};

// As pool->ParallelFor, or a plain loop if `pool` is null.
template <typename Body>
void ParallelFor(ThreadPool* pool, int64_t count, Body&& body) {
  if (pool != nullptr) {
    pool->ParallelFor(count, body);
  } else {
    for (int64_t i = 0; i < count; ++i) body(i);
  }
}

// For bodies too small to be handed out one at a time: rows are handed out some at a time.
template <typename Body>
void ParallelForRows(ThreadPool* pool, int64_t rows, Body&& body) {
  constexpr int64_t kRowsAtOnce = 16;
  ParallelFor(pool, (rows + kRowsAtOnce - 1) / kRowsAtOnce, [&](int64_t block) {
    const int64_t end = std::min(rows, (block + 1) * kRowsAtOnce);
    for (int64_t row = block * kRowsAtOnce; row < end; ++row) body(row);
  });
}

}  // namespace quiver::cpu

#endif  // QUIVER_KERNELS_CPU_THREAD_POOL_H_
