#ifndef QUIVER_TESTS_TESTING_VIRTUAL_CLOCK_H_
#define QUIVER_TESTS_TESTING_VIRTUAL_CLOCK_H_

#include "absl/time/time.h"

namespace quiver {

// Time that moves only when told to. For one thread.
class VirtualClock {
 public:
  absl::Time Now() const { return now_; }
  void Advance(absl::Duration by) { now_ += by; }
  // Never goes back.
  void AdvanceTo(absl::Time to) {
    if (to > now_) now_ = to;
  }

 private:
  // A time of day like any other, so that sums with infinite deadlines behave as they do in
  // earnest.
  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
};

}  // namespace quiver

#endif  // QUIVER_TESTS_TESTING_VIRTUAL_CLOCK_H_
