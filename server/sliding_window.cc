#include "server/sliding_window.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

namespace quiver {
namespace {

// Moves a ring of slots on to `now`, clearing those that come into use again.
template <typename Slots>
size_t AdvanceRing(absl::Time now, absl::Duration window, Slots* slots, int64_t* newest) {
  const auto count = static_cast<int64_t>(slots->size());
  const int64_t slot = (now - absl::UnixEpoch()) / (window / count);
  for (int64_t i = std::max(*newest, slot - count) + 1; i <= slot; ++i) {
    (*slots)[static_cast<size_t>(i % count)] = {};
  }
  *newest = std::max(*newest, slot);
  return static_cast<size_t>(*newest % count);
}

}  // namespace

void SlidingQuantiles::Add(absl::Time now, absl::Duration value) {
  const size_t bucket = Bucket(value);
  absl::MutexLock lock(&mutex_);
  ++slots_[Advance(now)][bucket];
}

void SlidingQuantiles::Quantiles(absl::Time now, absl::Span<const double> quantiles,
                                 absl::Span<double> out) {
  std::array<uint64_t, kBuckets> counts = {};
  {
    absl::MutexLock lock(&mutex_);
    Advance(now);
    for (const auto& slot : slots_) {
      for (size_t i = 0; i < counts.size(); ++i) counts[i] += slot[i];
    }
  }
  const uint64_t total = std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  if (total == 0) {
    std::fill(out.begin(), out.end(), std::numeric_limits<double>::quiet_NaN());
    return;
  }
  size_t bucket = 0;
  uint64_t below = counts[0];
  for (size_t i = 0; i < quantiles.size(); ++i) {
    const double rank = std::ceil(quantiles[i] * static_cast<double>(total));
    while (static_cast<double>(below) < rank && bucket + 1 < counts.size()) {
      below += counts[++bucket];
    }
    out[i] = BucketSeconds(bucket);
  }
}

size_t SlidingQuantiles::Bucket(absl::Duration value) {
  const auto us = static_cast<uint64_t>(std::clamp<int64_t>(
      absl::ToInt64Microseconds(value), 1 << kMinExponent, (int64_t{1} << kMaxExponent) - 1));
  const int exponent = std::bit_width(us) - 1;
  // The four bits below the leading one.
  const uint64_t sub = (us >> (exponent - 4)) & (kSubBuckets - 1);
  return static_cast<size_t>(exponent - kMinExponent) * kSubBuckets + sub;
}

double SlidingQuantiles::BucketSeconds(size_t bucket) {
  const auto exponent = static_cast<int>(bucket / kSubBuckets) + kMinExponent;
  const double mantissa = 1 + (static_cast<double>(bucket % kSubBuckets) + 0.5) / kSubBuckets;
  return std::ldexp(mantissa, exponent) * 1e-6;
}

size_t SlidingQuantiles::Advance(absl::Time now) {
  return AdvanceRing(now, kWindow, &slots_, &newest_);
}

void SlidingSum::Add(absl::Time now, absl::Duration value) {
  absl::MutexLock lock(&mutex_);
  slots_[Advance(now)] += value;
}

absl::Duration SlidingSum::Sum(absl::Time now) {
  absl::MutexLock lock(&mutex_);
  Advance(now);
  return std::accumulate(slots_.begin(), slots_.end(), absl::ZeroDuration());
}

size_t SlidingSum::Advance(absl::Time now) {
  return AdvanceRing(now, SlidingQuantiles::kWindow, &slots_, &newest_);
}

}  // namespace quiver
