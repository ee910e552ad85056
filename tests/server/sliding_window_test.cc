#include "server/sliding_window.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace quiver {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'000'000);

std::array<double, 3> Quantiles(SlidingQuantiles* window, absl::Time now) {
  std::array<double, 3> out;
  window->Quantiles(now, {0.5, 0.95, 0.99}, absl::MakeSpan(out));
  return out;
}

TEST(SlidingQuantiles, AreRightWithinAThirtySecond) {
  SlidingQuantiles window;
  std::mt19937 random(1);
  std::lognormal_distribution<double> seconds(-4, 1.5);
  std::vector<double> values;
  for (int i = 0; i < 20'000; ++i) {
    values.push_back(std::clamp(seconds(random), 1e-4, 200.0));
    window.Add(kStart + i * absl::Milliseconds(2), absl::Seconds(values.back()));
  }
  std::sort(values.begin(), values.end());
  const std::array<double, 3> got = Quantiles(&window, kStart + absl::Seconds(40));
  EXPECT_NEAR(got[0] / values[9'999], 1, 1.0 / 32);
  EXPECT_NEAR(got[1] / values[18'999], 1, 1.0 / 32);
  EXPECT_NEAR(got[2] / values[19'799], 1, 1.0 / 32);
}

TEST(SlidingQuantiles, OldValuesAreForgotten) {
  SlidingQuantiles window;
  EXPECT_TRUE(std::isnan(Quantiles(&window, kStart)[0]));
  for (int i = 0; i < 100; ++i) window.Add(kStart, absl::Seconds(10));
  window.Add(kStart + absl::Seconds(45), absl::Milliseconds(1));
  EXPECT_NEAR(Quantiles(&window, kStart + absl::Seconds(45))[0], 10, 10.0 / 32);
  EXPECT_NEAR(Quantiles(&window, kStart + absl::Seconds(75))[2], 0.001, 0.001 / 32);
  EXPECT_TRUE(std::isnan(Quantiles(&window, kStart + absl::Hours(1))[0]));
}

TEST(SlidingQuantiles, ExtremeValuesAreCut) {
  SlidingQuantiles window;
  window.Add(kStart, absl::ZeroDuration());
  window.Add(kStart, -absl::Seconds(1));
  window.Add(kStart, absl::InfiniteDuration());
  const std::array<double, 3> got = Quantiles(&window, kStart);
  EXPECT_NEAR(got[0], 64e-6, 4e-6);
  EXPECT_NEAR(got[2], 268, 9);
}

TEST(SlidingSum, CountsTheLastMinute) {
  SlidingSum sum;
  sum.Add(kStart, absl::Seconds(1));
  sum.Add(kStart + absl::Seconds(30), absl::Seconds(2));
  EXPECT_EQ(sum.Sum(kStart + absl::Seconds(30)), absl::Seconds(3));
  EXPECT_EQ(sum.Sum(kStart + absl::Seconds(61)), absl::Seconds(2));
  EXPECT_EQ(sum.Sum(kStart + absl::Seconds(91)), absl::ZeroDuration());
}

}  // namespace
}  // namespace quiver
