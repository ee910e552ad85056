// What happened lately, for those who have no PromQL: quantiles and sums over the last minute.
#ifndef QUIVER_SERVER_SLIDING_WINDOW_H_
#define QUIVER_SERVER_SLIDING_WINDOW_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace quiver {

// Counts durations in buckets that are 1/16 of a power of two wide, so that a quantile is right
// within 1/32 of its value; below 64 us and above 256 s it is cut. The window moves in steps of a
// sixth of it. Thread-safe. Times given must not go back by more than a step.
class SlidingQuantiles {
 public:
  static constexpr absl::Duration kWindow = absl::Minutes(1);

  void Add(absl::Time now, absl::Duration value);

  // For each of `quantiles`, in (0, 1] and ascending, the duration below which that part of the
  // window's values lies, in seconds; NaN if there are none.
  void Quantiles(absl::Time now, absl::Span<const double> quantiles, absl::Span<double> out);

 private:
  static constexpr int kSlots = 6;
  static constexpr int kSubBuckets = 16;
  // Powers of two of a microsecond.
  static constexpr int kMinExponent = 6;
  static constexpr int kMaxExponent = 28;
  static constexpr int kBuckets = (kMaxExponent - kMinExponent) * kSubBuckets;

  static size_t Bucket(absl::Duration value);
  // The middle of a bucket.
  static double BucketSeconds(size_t bucket);
  // Forgets the slots that have left the window, and returns the current one.
  size_t Advance(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  // Number of the newest slot since the epoch.
  int64_t newest_ ABSL_GUARDED_BY(mutex_) = 0;
  std::array<std::array<uint32_t, kBuckets>, kSlots> slots_ ABSL_GUARDED_BY(mutex_) = {};
};

// The sum of the window's durations. Thread-safe, as above.
class SlidingSum {
 public:
  void Add(absl::Time now, absl::Duration value);
  absl::Duration Sum(absl::Time now);

 private:
  static constexpr int kSlots = 60;

  size_t Advance(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  int64_t newest_ ABSL_GUARDED_BY(mutex_) = 0;
  std::array<absl::Duration, kSlots> slots_ ABSL_GUARDED_BY(mutex_) = {};
};

}  // namespace quiver

#endif  // QUIVER_SERVER_SLIDING_WINDOW_H_
