#include "kernels/cpu/thread_pool.h"

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace quiver::cpu {
namespace {

TEST(ThreadPoolTest, EveryIndexRunsOnce) {
  for (const int threads : {1, 2, 7}) {
    ThreadPool pool(threads);
    for (int64_t count = 0; count < 200; ++count) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(count));
      pool.ParallelFor(count, [&](int64_t i) { ++runs[i]; });
      for (const std::atomic<int>& run : runs) ASSERT_EQ(run, 1);
    }
  }
}

TEST(ThreadPoolTest, RowsAreAllRunOnce) {
  ThreadPool pool(3);
  for (const int64_t rows : {0, 1, 15, 16, 17, 100}) {
    std::vector<std::atomic<int>> runs(static_cast<size_t>(rows));
    ParallelForRows(&pool, rows, [&](int64_t r) { ++runs[r]; });
    for (const std::atomic<int>& run : runs) ASSERT_EQ(run, 1);
  }
}

TEST(ThreadPoolTest, ALoopInsideALoopAndOneBesideItAreRunByTheirOwnThreads) {
  ThreadPool pool(3);
  std::atomic<int> runs = 0;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        pool.ParallelFor(4, [&](int64_t) { pool.ParallelFor(5, [&](int64_t) { ++runs; }); });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(runs, 3 * 50 * 4 * 5);
}

TEST(ThreadPoolTest, WhatALoopWroteIsSeenAfterIt) {
  ThreadPool pool(4);
  std::vector<int64_t> values(1000);
  for (int64_t round = 1; round <= 100; ++round) {
    pool.ParallelFor(1000, [&](int64_t i) { values[i] += i; });
    for (int64_t i = 0; i < 1000; ++i) ASSERT_EQ(values[i], round * i);
  }
}

TEST(AvailableCoresTest, AtLeastOneIsThere) { EXPECT_GE(AvailableCores(), 1); }

}  // namespace
}  // namespace quiver::cpu
