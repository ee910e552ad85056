#include "server/gpu_monitor.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"
#include "server/device_metrics.h"

namespace quiver {
namespace {

// Run with tests/testing/fake_nvml.cc in place of the driver's library.
class GpuMonitorTest : public ::testing::Test {
 protected:
  GpuMonitorTest() : path_(absl::StrCat(::testing::TempDir(), "/fake_nvml_state.", ::getpid())) {
    setenv("FAKE_NVML_STATE", path_.c_str(), 1);
  }
  ~GpuMonitorTest() override { std::remove(path_.c_str()); }

  void SetCard(const std::string& state) {
    const std::string draft = path_ + ".tmp";
    std::ofstream(draft) << state;
    ASSERT_EQ(std::rename(draft.c_str(), path_.c_str()), 0);
  }

  // The first card once `reached` says so of it.
  static GpuState Await(const GpuMonitor& monitor, bool (*reached)(const GpuState&)) {
    for (int i = 0; i < 5000; ++i) {
      const GpuState gpu = monitor.Gpus()[0];
      if (reached(gpu)) return gpu;
      absl::SleepFor(absl::Milliseconds(1));
    }
    ADD_FAILURE() << "the card's state never came";
    return {};
  }

  const std::string path_;
};

TEST_F(GpuMonitorTest, WhatTheDriverSaysIsInBaseUnits) {
  SetCard("1000 600 25 312500 41");
  const std::unique_ptr<GpuMonitor> monitor = GpuMonitor::Start(absl::Milliseconds(1));
  ASSERT_NE(monitor, nullptr);
  const GpuState gpu = monitor->Gpus()[0];
  EXPECT_EQ(gpu.uuid, "GPU-00000000-0000-0000-0000-00000000fa4e");
  EXPECT_EQ(gpu.name, "Fake card");
  EXPECT_EQ(gpu.memory_total_bytes, 1000);
  EXPECT_EQ(gpu.memory_used_bytes, 600);
  EXPECT_EQ(gpu.memory_free_bytes, 400);
  EXPECT_EQ(gpu.utilization, 0.25);
  EXPECT_EQ(gpu.power_watts, 312.5);
  EXPECT_EQ(gpu.temperature_celsius, 41);
}

TEST_F(GpuMonitorTest, ChangesAreSeen) {
  SetCard("1000 600 25 312500 41");
  const std::unique_ptr<GpuMonitor> monitor = GpuMonitor::Start(absl::Milliseconds(1));
  SetCard("1000 990 100 700000 80");
  EXPECT_EQ(Await(*monitor, [](const GpuState& now) { return now.memory_free_bytes == 10; }).name,
            "Fake card");
}

TEST_F(GpuMonitorTest, WhatTheDriverDoesNotSayIsNotANumber) {
  SetCard("1000 600 25 312500 41");
  const std::unique_ptr<GpuMonitor> monitor = GpuMonitor::Start(absl::Milliseconds(1));
  std::remove(path_.c_str());
  const GpuState gpu =
      Await(*monitor, [](const GpuState& now) { return std::isnan(now.power_watts); });
  EXPECT_EQ(gpu.uuid, "GPU-00000000-0000-0000-0000-00000000fa4e");
}

class FixedMonitor : public GpuMonitor {
 public:
  std::vector<GpuState> Gpus() const override { return {Card("GPU-a"), Card("GPU-b")}; }

 private:
  static GpuState Card(const std::string& uuid) {
    GpuState gpu;
    gpu.uuid = uuid;
    gpu.name = "card";
    gpu.memory_total_bytes = 100;
    gpu.memory_used_bytes = 60;
    gpu.memory_free_bytes = 40;
    return gpu;
  }
};

class DeviceMetricsTest : public ::testing::Test {
 protected:
  bool Shows(const std::string& line) {
    device_.Refresh();
    const std::string text = prometheus::TextSerializer().Serialize(registry_.Collect());
    return text.find(line + "\n") != std::string::npos;
  }

  prometheus::Registry registry_;
  DeviceMetrics device_{&registry_, std::make_unique<FixedMonitor>()};
};

TEST_F(DeviceMetricsTest, OnlyTheBackendsCardIsShownOnceItIsKnown) {
  EXPECT_TRUE(Shows(R"(quiver_gpu_memory_free_bytes{name="card",uuid="GPU-a"} 40)"));
  EXPECT_TRUE(Shows(R"(quiver_gpu_memory_free_bytes{name="card",uuid="GPU-b"} 40)"));
  BackendInfo info;
  info.device = "cuda:1 (card, sm_90, wgmma)";
  info.device_uuid = "GPU-b";
  device_.SetBackend(info);
  EXPECT_FALSE(Shows(R"(quiver_gpu_memory_free_bytes{name="card",uuid="GPU-a"} 40)"));
  EXPECT_TRUE(Shows(R"(quiver_gpu_memory_free_bytes{name="card",uuid="GPU-b"} 40)"));
}

TEST_F(DeviceMetricsTest, EveryCardIsShownBesideAModelThatRunsOnNone) {
  BackendInfo info;
  info.device = "cpu (avx2, 2 threads)";
  device_.SetBackend(info);
  EXPECT_TRUE(Shows(R"(quiver_gpu_memory_free_bytes{name="card",uuid="GPU-a"} 40)"));
  EXPECT_TRUE(Shows(R"(quiver_gpu_memory_free_bytes{name="card",uuid="GPU-b"} 40)"));
}

TEST_F(DeviceMetricsTest, MemoryIsShownByPurposeAndBesideItsBudget) {
  BackendInfo info;
  info.device = "cuda:1 (card, sm_90, wgmma)";
  info.memory = {{"weights", 800}, {"activations", 60}};
  info.memory_budget_bytes = 900;
  device_.SetBackend(info);
  EXPECT_TRUE(Shows(R"(quiver_device_memory_bytes{device="cuda:1",purpose="weights"} 800)"));
  EXPECT_TRUE(Shows(R"(quiver_device_memory_bytes{device="cuda:1",purpose="activations"} 60)"));
  EXPECT_TRUE(Shows(R"(quiver_device_memory_budget_bytes{device="cuda:1"} 900)"));
}

}  // namespace
}  // namespace quiver
