#include "engine/schedule/task_queue.h"

#include <algorithm>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace quiver {
namespace {

TEST(TaskQueueTest, GivesOutInOrderWhateverComesAndGoesBack) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    TaskQueue queue;
    Job job;
    std::set<std::pair<int64_t, uint64_t>> model;
    uint64_t number = 0;
    for (int i = 0; i < 100; ++i) {
      if (random() % 3 != 0 || queue.empty()) {
        const int64_t due = random() % 4 == 0 ? static_cast<int64_t>(random() % 100) : i;
        queue.Push({due, number, &job, 1});
        model.insert({due, number++});
      } else {
        // A few come out; some of those go back, the last first.
        std::vector<TaskQueue::Entry> back;
        for (size_t n = random() % 5; n > 0 && !queue.empty(); --n) {
          EXPECT_EQ(queue.Top().number, model.begin()->second);
          const TaskQueue::Entry entry = queue.Pop();
          ASSERT_EQ(std::pair(entry.due, entry.number), *model.begin());
          model.erase(model.begin());
          if (random() % 2 == 0) back.push_back(entry);
        }
        std::for_each(back.rbegin(), back.rend(), [&](const TaskQueue::Entry& entry) {
          queue.PutBack(entry);
          model.insert({entry.due, entry.number});
        });
      }
      ASSERT_EQ(queue.tokens(), static_cast<int64_t>(model.size()));
      ASSERT_EQ(queue.empty(), model.empty());
      const int64_t due = static_cast<int64_t>(random() % 120);
      ASSERT_LE(queue.TokensUntil(due),
                std::distance(model.begin(), model.lower_bound({due + 1, 0})));
    }
    while (!queue.empty()) {
      ASSERT_EQ(queue.Pop().number, model.begin()->second);
      model.erase(model.begin());
    }
    EXPECT_TRUE(model.empty());
  }
}

TEST(TaskQueueTest, TokensUntilIsExactForTasksThatCameInOrder) {
  TaskQueue queue;
  Job job;
  for (int i = 0; i < 10; ++i) queue.Push({i, static_cast<uint64_t>(i), &job, 100});
  queue.Pop();
  EXPECT_EQ(queue.TokensUntil(0), 0);
  EXPECT_EQ(queue.TokensUntil(4), 400);
  EXPECT_EQ(queue.TokensUntil(100), 900);
}

TEST(TaskQueueTest, PurgeLeavesTheOthersInOrder) {
  TaskQueue queue;
  Job wanted;
  Job unwanted;
  for (int i = 0; i < 100; ++i) {
    queue.Push(
        {i % 7 == 0 ? 5 : i, static_cast<uint64_t>(i), i % 3 == 0 ? &unwanted : &wanted, 10});
  }
  queue.PutBack(queue.Pop());
  queue.Purge([&](Job* job) { return job == &wanted; });
  EXPECT_EQ(queue.tokens(), 660);
  EXPECT_LE(queue.TokensUntil(50), 660);
  int64_t last = -1;
  int left = 0;
  for (; !queue.empty(); ++left) {
    const TaskQueue::Entry entry = queue.Pop();
    EXPECT_EQ(entry.job, &wanted);
    EXPECT_GE(entry.due, last);
    last = entry.due;
  }
  EXPECT_EQ(left, 66);
  EXPECT_EQ(queue.tokens(), 0);
}

}  // namespace
}  // namespace quiver
