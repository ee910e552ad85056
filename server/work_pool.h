#ifndef QUIVER_SERVER_WORK_POOL_H_
#define QUIVER_SERVER_WORK_POOL_H_

#include <deque>
#include <map>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/types.h"

namespace quiver {

// A few threads that take turns at jobs, so that a large request is worked on in slices between
// those of others. Interactive jobs go first; every fourth turn is bulk's. Thread-safe.
class WorkPool {
 public:
  // Runs one slice of the job and says when the next is wanted: after zero time (behind the jobs
  // that wait), after some, or kFinished. Must not throw.
  using Job = absl::AnyInvocable<absl::Duration()>;
  static constexpr absl::Duration kFinished = absl::InfiniteDuration();

  explicit WorkPool(int threads);
  // Runs every job to its end first, without the waits they ask for.
  ~WorkPool();

  void Add(Lane lane, Job job);

  int threads() const { return static_cast<int>(threads_.size()); }

 private:
  struct Entry {
    Lane lane;
    Job job;
  };

  void Work();
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Moves the entries whose time has come to their queues.
  void WakeDelayed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Entry Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  std::deque<Entry> ready_[kNumLanes] ABSL_GUARDED_BY(mutex_);
  std::multimap<absl::Time, Entry> delayed_ ABSL_GUARDED_BY(mutex_);
  unsigned turn_ ABSL_GUARDED_BY(mutex_) = 0;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_WORK_POOL_H_
