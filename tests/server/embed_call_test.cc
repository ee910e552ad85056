// What all doors have in common, without a door: under ThreadSanitizer this shows the hand-offs
// between tokenizer, scheduler and replies, which gRPC's own uninstrumented ones would hide.
#include "server/embed_call.h"

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/fake_embedder.h"

namespace quiver {
namespace {

constexpr int kProducers = 64;
constexpr int kCallsOfEach = 20;

class EmbedCallTest : public ::testing::Test {
 protected:
  void SetUp() override {
    embedder_ = MakeFakeEmbedder({}, {}, nullptr, &backend_);
    auto plan = embedder_->Plan({});
    ASSERT_TRUE(plan.ok()) << plan.status();
    plan_ = std::make_shared<const RequestPlan>(*std::move(plan));
    calls_ = std::make_unique<EmbedCalls>(EmbedCalls::Options{.tokenizer = {.threads = 2}});
  }
  void TearDown() override { embedder_->Drain(absl::Now() + absl::Seconds(10)); }

  TokenizeJob::Options Job(const std::vector<std::string>& texts, Lane lane = Lane::kInteractive) {
    TokenizeJob::Options job;
    job.embedder = embedder_.get();
    job.plan = plan_;
    for (const std::string& text : texts) {
      job.inputs.push_back({.content = absl::string_view(text)});
    }
    job.submit.lane = lane;
    return job;
  }

  FakeBackend* backend_ = nullptr;
  std::unique_ptr<Embedder> embedder_;
  std::shared_ptr<const RequestPlan> plan_;
  std::unique_ptr<EmbedCalls> calls_;
};

// One small call or one cut into slices, by its number.
std::vector<std::string> TextsOf(int producer, int call) {
  std::vector<std::string> texts;
  const int count = call % 4 == 0 ? 200 : 3;
  for (int i = 0; i < count; ++i) {
    texts.push_back(absl::StrCat(producer, "/", call, "/", i, std::string(i % 7 * 40, 'x')));
  }
  return texts;
}

TEST_F(EmbedCallTest, ConcurrentCallsGetTheirOwnResultsOnceEach) {
  std::atomic<int> wrong{0};
  std::vector<std::atomic<int>> answers(kProducers * kCallsOfEach);
  absl::BlockingCounter left(kProducers * kCallsOfEach);
  std::vector<std::thread> producers;
  for (int producer = 0; producer < kProducers; ++producer) {
    producers.emplace_back([&, producer] {
      for (int call = 0; call < kCallsOfEach; ++call) {
        auto texts = std::make_shared<const std::vector<std::string>>(TextsOf(producer, call));
        const Lane lane = call % 3 == 0 ? Lane::kBulk : Lane::kInteractive;
        calls_->Start(
            Job(*texts, lane), absl::Now(),
            [&, texts, slot = producer * kCallsOfEach + call](absl::StatusOr<EmbedReply> reply) {
              ++answers[slot];
              if (!reply.ok() || reply->results.size() != texts->size()) {
                ++wrong;
              } else {
                for (size_t i = 0; i < texts->size(); ++i) {
                  const auto& result = reply->results[i];
                  if (!result.ok() || result->vector.data != VectorOf((*texts)[i])) {
                    ++wrong;
                  }
                }
              }
              left.DecrementCount();
            });
      }
    });
  }
  for (std::thread& producer : producers) producer.join();
  left.Wait();
  EXPECT_EQ(wrong, 0);
  for (const std::atomic<int>& count : answers) EXPECT_EQ(count, 1);
}

TEST_F(EmbedCallTest, ACallCancelledMeanwhileIsAnsweredOnce) {
  std::atomic<int> unexpected{0};
  absl::BlockingCounter left(kProducers);
  std::vector<std::thread> producers;
  for (int producer = 0; producer < kProducers; ++producer) {
    producers.emplace_back([&, producer] {
      auto texts = std::make_shared<const std::vector<std::string>>(TextsOf(producer, 0));
      auto cancellation = std::make_shared<CancellationFlag>();
      TokenizeJob::Options job = Job(*texts);
      job.submit.cancellation = cancellation;
      calls_->Start(std::move(job), absl::Now(), [&, texts](absl::StatusOr<EmbedReply> reply) {
        if (!reply.ok() && !absl::IsCancelled(reply.status())) ++unexpected;
        left.DecrementCount();
      });
      cancellation->Cancel();
    });
  }
  for (std::thread& producer : producers) producer.join();
  left.Wait();
  EXPECT_EQ(unexpected, 0);
}

TEST_F(EmbedCallTest, WhatIsCancelledBeforeItsTurnToBeTokenizedIsNeverQueued) {
  // Many, so that the pool's threads take them slice by slice.
  const std::vector<std::string> texts = TextsOf(0, 0);
  auto cancellation = std::make_shared<CancellationFlag>();
  cancellation->Cancel();
  TokenizeJob::Options job = Job(texts);
  job.submit.cancellation = cancellation;
  const size_t warm_up_passes = backend_->Passes().size();
  absl::Status answer;
  absl::Notification answered;
  calls_->Start(std::move(job), absl::Now(), [&](absl::StatusOr<EmbedReply> reply) {
    answer = reply.status();
    answered.Notify();
  });
  answered.WaitForNotification();
  EXPECT_EQ(answer.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(backend_->Passes().size(), warm_up_passes);
}

TEST_F(EmbedCallTest, WhatIsWrongWithOneInputIsItsOwnResult) {
  const std::vector<std::string> texts = {"before", "\xff", "", "after"};
  absl::Notification answered;
  calls_->Start(Job(texts), absl::Now(), [&](absl::StatusOr<EmbedReply> reply) {
    ASSERT_TRUE(reply.ok()) << reply.status();
    ASSERT_EQ(reply->results.size(), 4u);
    EXPECT_EQ(reply->results[0]->vector.data, VectorOf("before"));
    EXPECT_TRUE(absl::IsInvalidArgument(reply->results[1].status()));
    EXPECT_TRUE(absl::IsInvalidArgument(reply->results[2].status()));
    EXPECT_EQ(reply->results[3]->vector.data, VectorOf("after"));
    EXPECT_EQ(reply->report.succeeded, 2);
    EXPECT_EQ(reply->report.failed, 2);
    answered.Notify();
  });
  answered.WaitForNotification();
}

TEST_F(EmbedCallTest, WhatIsGivenUpBeforeItIsTokenizedIsCounted) {
  class Counter : public SchedulerObserver {
   public:
    void OnBatch(const BatchReport&) override {}
    void OnJoined(Lane) override {}
    void OnDropped(Lane lane, DropPoint where, absl::StatusCode code) override {
      count += lane == Lane::kBulk && where == DropPoint::kTokenizing &&
               code == absl::StatusCode::kCancelled;
    }
    std::atomic<int> count{0};
  };
  Counter counter;
  EmbedCalls calls({.tokenizer = {.threads = 2, .observer = &counter}});
  const std::vector<std::string> texts = {"one", "two", "three"};
  TokenizeJob::Options job = Job(texts, Lane::kBulk);
  auto flag = std::make_shared<CancellationFlag>();
  flag->Cancel();
  job.submit.cancellation = flag;
  absl::Notification done;
  calls.Start(std::move(job), absl::Now(), [&](absl::StatusOr<EmbedReply> reply) {
    EXPECT_EQ(reply.status().code(), absl::StatusCode::kCancelled);
    done.Notify();
  });
  done.WaitForNotification();
  EXPECT_EQ(counter.count, 3);
}

}  // namespace
}  // namespace quiver
