// Embed while it cannot be answered at once: what loads, drains, is full, is cancelled or comes too
// late.
#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/server/service_fixture.h"

namespace quiver {
namespace {

using EmbedServiceWaitingTest = ServiceTest;

TEST_F(EmbedServiceWaitingTest, NothingIsServedWhileTheModelLoads) {
  Start({.serve = false});
  v1::EmbedResponse response;
  grpc::Status status = Embed(Request({"t"}), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(RetryAfter(status), absl::Seconds(1));
  grpc::ClientContext context;
  v1::ModelInfo info;
  EXPECT_EQ(stub_->GetModelInfo(&context, {}, &info).error_code(), grpc::StatusCode::UNAVAILABLE);
  state_.Serve(embedder_.get());
  EXPECT_TRUE(Embed(Request({"t"}), &response).ok());
}

TEST_F(EmbedServiceWaitingTest, ADrainFinishesWhatWasAcceptedAndRefusesTheRest) {
  Start();
  gate_.Close();
  std::thread accepted([this] {
    v1::EmbedResponse response;
    const grpc::Status status = Embed(Request({"accepted"}), &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ExpectVector(response.results(0), "accepted");
  });
  gate_.AwaitWaiter();
  state_.Drain();
  v1::EmbedResponse response;
  EXPECT_EQ(Embed(Request({"late"}), &response).error_code(), grpc::StatusCode::UNAVAILABLE);
  gate_.Open();
  EXPECT_TRUE(embedder_->Drain(absl::InfiniteFuture()));
  accepted.join();
}

TEST_F(EmbedServiceWaitingTest, AClosedQueueRefusesTheWholeRequest) {
  Start();
  embedder_->Drain(absl::InfiniteFuture());
  v1::EmbedResponse response;
  EXPECT_EQ(Embed(Request({"t", ""}), &response).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(EmbedServiceWaitingTest, AFullQueueRefusesTheWholeRequestOnlyIfItTookNothing) {
  Embedder::Options small;
  small.scheduler.max_queued_tasks = 4;
  Start({.embedder = small});
  gate_.Close();
  std::vector<std::thread> clients;
  // One runs; of the eight some wait, others are refused, each by its own status.
  clients.emplace_back([this] {
    v1::EmbedResponse response;
    EXPECT_TRUE(Embed(Request({"runs"}), &response).ok());
  });
  gate_.AwaitWaiter();
  std::promise<v1::EmbedResponse> partly;
  clients.emplace_back([this, &partly] {
    v1::EmbedResponse response;
    EXPECT_TRUE(Embed(Request({"1", "2", "3", "4", "5", "6", "7", "8"}), &response).ok());
    partly.set_value(response);
  });
  while (embedder_->Snapshot().lanes[0].tasks < 4) absl::SleepFor(absl::Milliseconds(1));
  v1::EmbedResponse response;
  const grpc::Status status = Embed(Request({"9", ""}), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_GT(RetryAfter(status), absl::ZeroDuration());
  gate_.Open();
  for (std::thread& client : clients) client.join();
  const v1::EmbedResponse mixed = partly.get_future().get();
  ASSERT_EQ(mixed.results_size(), 8);
  ExpectVector(mixed.results(0), "1");
  EXPECT_EQ(mixed.results(7).error().code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_GT(mixed.usage().failed(), 0u);
  EXPECT_GE(mixed.usage().succeeded(), 4u);
}

TEST_F(EmbedServiceWaitingTest, ACancelledRequestIsNotComputed) {
  Start();
  gate_.Close();
  std::thread running([this] {
    v1::EmbedResponse response;
    EXPECT_TRUE(Embed(Request({"runs"}), &response).ok());
  });
  gate_.AwaitWaiter();
  grpc::ClientContext context;
  std::thread cancelled([this, &context] {
    v1::EmbedResponse response;
    EXPECT_EQ(stub_->Embed(&context, Request({"a", "b"}), &response).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  while (embedder_->Snapshot().lanes[0].tasks < 2) absl::SleepFor(absl::Milliseconds(1));
  context.TryCancel();
  cancelled.join();
  AwaitServerCaughtUp();
  gate_.Open();
  running.join();
  int cancelled_reports = 0;
  for (const RequestReport& report : observer_.Reports(Rpc::kEmbed, 2)) {
    cancelled_reports += report.code == absl::StatusCode::kCancelled ? 1 : 0;
  }
  EXPECT_EQ(cancelled_reports, 1);
  int sequences = 0;
  for (const auto& pass : backend_->Passes()) {
    for (int length : pass.lengths) sequences += length == 3 ? 1 : 0;
  }
  EXPECT_EQ(sequences, 0);
}

TEST_F(EmbedServiceWaitingTest, ADeadlineEndsARequestThatWaits) {
  Start();
  gate_.Close();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  v1::EmbedResponse response;
  EXPECT_EQ(stub_->Embed(&context, Request({"a"}), &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  AwaitServerCaughtUp();
  gate_.Open();
  // Though the client's clock may strike first, and cancel.
  EXPECT_EQ(observer_.Reports(Rpc::kEmbed, 1)[0].code, absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace quiver
