#include "engine/run/device_options.h"

#include "gtest/gtest.h"

namespace quiver {
namespace {

using Kind = DeviceChoice::Kind;

TEST(DeviceOptionsTest, DevicesAreReadAndWrittenBack) {
  EXPECT_EQ(ParseDeviceChoice("auto"), (DeviceChoice{Kind::kAuto, 0}));
  EXPECT_EQ(ParseDeviceChoice("cpu"), (DeviceChoice{Kind::kCpu, 0}));
  EXPECT_EQ(ParseDeviceChoice("cuda"), (DeviceChoice{Kind::kCuda, 0}));
  EXPECT_EQ(ParseDeviceChoice("cuda:3"), (DeviceChoice{Kind::kCuda, 3}));
  for (const char* text : {"auto", "cpu", "cuda", "cuda:12"}) {
    EXPECT_EQ(DeviceChoiceText(*ParseDeviceChoice(text)), text);
  }
}

TEST(DeviceOptionsTest, WhatIsNoDeviceIsRefused) {
  for (const char* text :
       {"", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:1x", "cuda: 1", "cpu:0", "cuda:99999999999"}) {
    EXPECT_FALSE(ParseDeviceChoice(text).has_value()) << text;
  }
}

TEST(DeviceOptionsTest, BudgetsAreBytesOrAFraction) {
  EXPECT_EQ(ParseMemoryBudget("9800000000"), (MemoryBudget{9'800'000'000, 0}));
  EXPECT_EQ(ParseMemoryBudget("8GiB"), (MemoryBudget{int64_t{8} << 30, 0}));
  EXPECT_EQ(ParseMemoryBudget("1.5GiB"), (MemoryBudget{int64_t{3} << 29, 0}));
  EXPECT_EQ(ParseMemoryBudget("512MiB"), (MemoryBudget{int64_t{512} << 20, 0}));
  EXPECT_EQ(ParseMemoryBudget("0.25"), (MemoryBudget{0, 0.25}));
  EXPECT_EQ(ParseMemoryBudget("1.0"), (MemoryBudget{0, 1}));
  // One byte is nobody's budget.
  EXPECT_EQ(ParseMemoryBudget("1"), (MemoryBudget{0, 1}));
}

TEST(DeviceOptionsTest, WhatIsNoBudgetIsRefused) {
  for (const char* text : {"", "0", "0.0", "-1", "1.01", "nan", "inf", "GiB", "8GB", "8 gib",
                           "infGiB", "99999999999GiB", "9e30MiB"}) {
    EXPECT_FALSE(ParseMemoryBudget(text).has_value()) << text;
  }
}

TEST(DeviceOptionsTest, ABudgetIsOfTheCard) {
  EXPECT_EQ((MemoryBudget{1000, 0}).BytesOf(5000), 1000);
  EXPECT_EQ((MemoryBudget{9000, 0}).BytesOf(5000), 5000);
  EXPECT_EQ((MemoryBudget{0, 0.5}).BytesOf(5000), 2500);
  const int64_t by_default = MemoryBudget().BytesOf(5000);
  EXPECT_GT(by_default, 4000);
  EXPECT_LT(by_default, 5000);
}

TEST(DeviceOptionsTest, BudgetsAreWrittenAsTheyAreRead) {
  for (const char* text : {"8GiB", "512MiB", "3KiB", "9800000001", "0.25"}) {
    EXPECT_EQ(MemoryBudgetText(*ParseMemoryBudget(text)), text);
  }
  EXPECT_EQ(MemoryBudgetText({}), "");
}

}  // namespace
}  // namespace quiver
