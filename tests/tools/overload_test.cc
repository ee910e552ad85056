// A server with a device of stated speed under the load of `quiver bench serve`. Prints its
// figures. What takes long is short here; QUIVER_TEST_SECONDS is the length of the overload.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/embed_service.h"
#include "server/grpc_server.h"
#include "server/metrics.h"
#include "server/process_metrics.h"
#include "tests/testing/fake_embedder.h"
#include "tools/quiver/load_generator.h"
#include "tools/quiver/remote_executor.h"
#include "tools/quiver/serve_report.h"

namespace quiver {
namespace {

constexpr int kTokens = 32;

// The whole server but for its process, over FakeBackend.
class FakeServer {
 public:
  FakeServer(FakeBackend::Options device, Scheduler::Options scheduler) {
    Embedder::Options options;
    options.scheduler = scheduler;
    embedder_ = MakeFakeEmbedder(options, std::move(device), metrics_.scheduler_observer());
    auto server = GrpcServer::Create({.port = 0}, &service_, "quiver.v1.EmbedService");
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    state_.Serve(embedder_.get());
  }
  ~FakeServer() {
    state_.Drain();
    embedder_->Drain(absl::Now() + absl::Seconds(10));
    server_->Shutdown(absl::ZeroDuration());
  }

  std::string address() const { return server_->address(); }

 private:
  Metrics metrics_{nullptr};
  ServingState state_;
  std::unique_ptr<Embedder> embedder_;
  ServedModel model_{&state_, {}};
  EmbedCalls calls_{{.tokenizer = {.threads = 1}}};
  EmbedService service_{{.server_version = "1"}, &model_, &calls_, metrics_.request_observer()};
  std::unique_ptr<GrpcServer> server_;
};

// 2 ms an input of kTokens.
FakeBackend::Options Device() {
  FakeBackend::Options device;
  device.token_us = 2000.0 / kTokens;
  device.step_us = 2000;
  device.keep_records = false;
  return device;
}

class OverloadTest : public ::testing::Test {
 protected:
  static absl::StatusOr<v1::ModelInfo> Describe(const FakeServer& server) {
    RemoteExecutor::Options options;
    options.server = server.address();
    return RemoteExecutor(options).Describe();
  }

  std::vector<LoadResult> Load(const FakeServer& server, absl::Duration warm_up,
                               absl::Duration duration, const std::vector<std::string>& texts) {
    std::vector<Workload> workloads;
    for (const std::string& text : texts) {
      const auto workload = ParseWorkload(text);
      EXPECT_TRUE(workload.ok()) << workload.status();
      workloads.push_back(*workload);
    }
    ServeReport report;
    report.server = server.address();
    auto info = Describe(server);
    EXPECT_TRUE(info.ok()) << info.status();
    report.model = *info;
    auto results = RunLoad({.server = server.address(), .warm_up = warm_up, .duration = duration},
                           *info, workloads);
    EXPECT_TRUE(results.ok()) << results.status();
    report.runs.push_back(*results);
    std::printf("%s\n", ServeTable(report).c_str());
    return *std::move(results);
  }
};

double PerSecond(const LoadResult& result) {
  return static_cast<double>(result.items) / result.seconds;
}

TEST_F(OverloadTest, ThreeTimesTheCapacityIsRefusedAtOnceAndTheRestIsServed) {
  int seconds = 3;
  if (const char* given = std::getenv("QUIVER_TEST_SECONDS"); given != nullptr) {
    ASSERT_TRUE(absl::SimpleAtoi(given, &seconds));
  }
  Scheduler::Options scheduler;
  // A fifth of a second of work.
  scheduler.max_queued_tokens = 100 * kTokens;
  FakeServer server(Device(), scheduler);
  const auto capacity = [&] {
    return PerSecond(Load(server, absl::Seconds(0.5), absl::Seconds(2),
                          {"name=capacity,outstanding=64,tokens=32"})[0]);
  };
  const double rate = capacity();
  ASSERT_GT(rate, 0);

  const std::string overload = absl::StrCat("name=overload,tokens=32,rate=", 3 * rate);
  Load(server, absl::ZeroDuration(), absl::Seconds(1), {overload});
  const int64_t memory = ReadProcessState().resident_bytes;
  const LoadResult result = Load(server, absl::Seconds(0.5), absl::Seconds(seconds), {overload})[0];
  const int64_t grown = ReadProcessState().resident_bytes - memory;
  std::printf("resident memory grew by %.1f MB\n", static_cast<double>(grown) * 1e-6);
  // The latencies that the load's side keeps are a few bytes a request.
  EXPECT_LE(grown, (8 << 20) + 16 * result.requests);
  ASSERT_EQ(result.failures.size(), 1u);
  EXPECT_GT(result.failures.at(absl::StatusCode::kResourceExhausted), 0);
  // On a machine of its own the P99 is held to 5 ms; here others may have the cores for a while.
  EXPECT_LT(Quantile(result.refusal_ms, 0.5), 5);
  EXPECT_LT(Quantile(result.latency_ms, 0.5), 300);

  const LoadResult after =
      Load(server, absl::ZeroDuration(), absl::Seconds(1), {"name=recovery,rate=50,tokens=32"})[0];
  EXPECT_TRUE(after.failures.empty());
  EXPECT_LT(Quantile(after.latency_ms, 0.5), 50);
  // What else goes on may have slowed the machine since the beginning.
  EXPECT_GE(PerSecond(result), 0.95 * std::min(rate, capacity()));
}

TEST_F(OverloadTest, QueriesDoNotWaitForASaturatingStream) {
  FakeBackend::Options device = Device();
  device.step_us = 500;
  FakeServer server(device, {});
  const auto results =
      Load(server, absl::Seconds(0.3), absl::Seconds(1),
           {"name=query,rate=50,even,tokens=32", "name=bulk,stream,tokens=512,outstanding=64"});
  ASSERT_EQ(results.size(), 2u);
  EXPECT_TRUE(results[0].failures.empty());
  EXPECT_TRUE(results[1].failures.empty());
  // A bulk pass takes 250 ms.
  EXPECT_LT(Quantile(results[0].latency_ms, 0.5), 50);
  EXPECT_GT(results[1].items, 0);
}

TEST_F(OverloadTest, WhatIsNotAnsweredInTimeIsCancelled) {
  FakeBackend::Options device = Device();
  device.fixed_us = 500'000;
  device.step_us = 0;
  FakeServer server(device, {});
  auto info = Describe(server);
  ASSERT_TRUE(info.ok()) << info.status();
  const auto results =
      RunLoad({.server = server.address(),
               .warm_up = absl::ZeroDuration(),
               .duration = absl::Milliseconds(200),
               .patience = absl::ZeroDuration()},
              *info, {*ParseWorkload("outstanding=3,tokens=8"), *ParseWorkload("stream,rate=20")});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ((*results)[0].failures.at(absl::StatusCode::kCancelled), 3);
  EXPECT_GT((*results)[1].failures.at(absl::StatusCode::kCancelled), 0);
}

TEST_F(OverloadTest, InputsBeyondTheModelsLimitAreNotSent) {
  FakeServer server(Device(), {});
  auto info = Describe(server);
  ASSERT_TRUE(info.ok()) << info.status();
  const auto results =
      RunLoad({.server = server.address()}, *info, {*ParseWorkload("rate=1,tokens=513")});
  EXPECT_EQ(results.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(results.status().message(), ::testing::HasSubstr("must be at most 512, is 513"));
}

}  // namespace
}  // namespace quiver
