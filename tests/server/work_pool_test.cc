#include "server/work_pool.h"

#include <atomic>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace quiver {
namespace {

// The order in which jobs of one thread ran, added while it was held up.
class WorkPoolTest : public ::testing::Test {
 protected:
  void HoldUp(WorkPool* pool) {
    pool->Add(Lane::kInteractive, [this] {
      started_.Notify();
      go_.WaitForNotification();
      return WorkPool::kFinished;
    });
    started_.WaitForNotification();
  }
  // A job of so many slices, each of which leaves its name.
  WorkPool::Job Slices(char name, int count) {
    return [this, name, count]() mutable {
      order_ += name;
      return --count > 0 ? absl::ZeroDuration() : WorkPool::kFinished;
    };
  }

  absl::Notification started_;
  absl::Notification go_;
  std::string order_;
};

TEST_F(WorkPoolTest, JobsTakeTurnsSliceBySlice) {
  {
    WorkPool pool(1);
    HoldUp(&pool);
    pool.Add(Lane::kInteractive, Slices('a', 3));
    pool.Add(Lane::kInteractive, Slices('b', 1));
    pool.Add(Lane::kInteractive, Slices('c', 2));
    go_.Notify();
  }
  EXPECT_EQ(order_, "abcaca");
}

TEST_F(WorkPoolTest, InteractiveGoesFirstAndEveryFourthTurnIsBulks) {
  {
    WorkPool pool(1);
    HoldUp(&pool);
    pool.Add(Lane::kBulk, Slices('b', 4));
    pool.Add(Lane::kInteractive, Slices('i', 7));
    go_.Notify();
  }
  // The first turn was the one that held up the rest.
  EXPECT_EQ(order_, "iibiiibiibb");
}

TEST_F(WorkPoolTest, AJobComesBackAfterTheTimeItAsksFor) {
  WorkPool pool(2);
  absl::Notification done;
  const absl::Time start = absl::Now();
  pool.Add(Lane::kBulk, [&, again = false]() mutable {
    if (again) {
      done.Notify();
      return WorkPool::kFinished;
    }
    again = true;
    return absl::Milliseconds(20);
  });
  done.WaitForNotification();
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(20));
}

TEST_F(WorkPoolTest, DestructionRunsWhatIsLeftWithoutItsWaits) {
  std::atomic<int> runs = 0;
  {
    WorkPool pool(3);
    for (int i = 0; i < 100; ++i) {
      pool.Add(Lane::kBulk, [&runs, left = 5]() mutable {
        ++runs;
        return --left > 0 ? absl::Hours(1) : WorkPool::kFinished;
      });
    }
  }
  EXPECT_EQ(runs, 500);
}

}  // namespace
}  // namespace quiver
