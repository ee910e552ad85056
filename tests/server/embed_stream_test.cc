#include "server/embed_stream.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/service_fixture.h"

namespace quiver {
namespace {

using ::testing::HasSubstr;

using Stream = grpc::ClientReaderWriter<v1::EmbedStreamRequest, v1::EmbedStreamResponse>;

// What a client got until the stream's end.
struct Received {
  std::vector<v1::EmbedStreamResponse> responses;
  std::vector<v1::EmbedResult> results;
  grpc::Status status;
};

Received ReadAll(Stream* stream) {
  Received received;
  v1::EmbedStreamResponse response;
  while (stream->Read(&response)) {
    received.results.insert(received.results.end(), response.results().begin(),
                            response.results().end());
    received.responses.push_back(response);
  }
  received.status = stream->Finish();
  return received;
}

v1::EmbedStreamRequest Message(const std::vector<std::string>& texts) {
  v1::EmbedStreamRequest message;
  for (const std::string& text : texts) message.add_inputs()->set_text(text);
  return message;
}

v1::EmbedStreamRequest First(const std::vector<std::string>& texts, bool in_order = false) {
  v1::EmbedStreamRequest message = Message(texts);
  message.mutable_start()->set_in_order(in_order);
  return message;
}

class EmbedStreamTest : public ServiceTest {
 protected:
  std::unique_ptr<Stream> Open() { return stub_->EmbedStream(&context_); }

  // Sends all messages, closes, and reads.
  Received Exchange(const std::vector<v1::EmbedStreamRequest>& messages) {
    auto stream = Open();
    std::thread writer([&] {
      for (const v1::EmbedStreamRequest& message : messages) {
        if (!stream->Write(message)) break;
      }
      stream->WritesDone();
    });
    Received received = ReadAll(stream.get());
    writer.join();
    return received;
  }

  grpc::ClientContext context_;
};

TEST_F(EmbedStreamTest, EveryItemIsAnsweredOnceAndThenComesTheSummary) {
  Start();
  std::vector<v1::EmbedStreamRequest> messages = {First({"0", "1"}), Message({}), Message({"2"})};
  messages[2].mutable_inputs(0)->set_id("two");
  const Received received = Exchange(messages);
  ASSERT_TRUE(received.status.ok()) << received.status.error_message();
  const v1::EmbedStreamResponse& first = received.responses.front();
  EXPECT_EQ(first.limits().max_items_in_flight(), 4096u);
  EXPECT_EQ(first.limits().max_tokens_in_flight(), 1u << 20);
  EXPECT_EQ(first.vector_space().fingerprint(), embedder_->info().space_fingerprint);
  EXPECT_EQ(first.results_size(), 0);
  std::set<uint64_t> seen;
  for (const v1::EmbedResult& result : received.results) {
    EXPECT_TRUE(seen.insert(result.index()).second);
    EXPECT_EQ(result.embedding().data(), VectorOf(absl::StrCat(result.index())));
    EXPECT_EQ(result.id(), result.index() == 2 ? "two" : "");
  }
  EXPECT_EQ(seen.size(), 3u);
  for (size_t i = 1; i < received.responses.size(); ++i) {
    EXPECT_FALSE(received.responses[i].has_limits());
    EXPECT_EQ(received.responses[i].has_summary(), i + 1 == received.responses.size());
  }
  const v1::StreamSummary& summary = received.responses.back().summary();
  EXPECT_EQ(summary.items(), 3u);
  EXPECT_EQ(summary.usage().succeeded(), 3u);
  EXPECT_EQ(summary.usage().total_tokens(), 9u);
  EXPECT_TRUE(summary.failures_by_code().empty());
  const RequestReport report = observer_.Reports(Rpc::kEmbedStream, 1)[0];
  EXPECT_EQ(report.code, absl::StatusCode::kOk);
  EXPECT_EQ(report.lane, Lane::kBulk);
  EXPECT_EQ(report.succeeded, 3);
  EXPECT_EQ(report.tokens, 9);
}

TEST_F(EmbedStreamTest, ItemsAreCountedBeforeTheStreamEnds) {
  Start();
  auto stream = Open();
  ASSERT_TRUE(stream->Write(First({"0", "1", ""})));
  v1::EmbedStreamResponse response;
  for (int answered = 0; answered < 3; answered += response.results_size()) {
    ASSERT_TRUE(stream->Read(&response));
  }
  EXPECT_EQ(observer_.items(), 3);
  stream->WritesDone();
  ReadAll(stream.get());
  EXPECT_EQ(observer_.Reports(Rpc::kEmbedStream, 1)[0].succeeded, 2);
  EXPECT_EQ(observer_.items(), 3);
}

TEST_F(EmbedStreamTest, AStreamWithoutItemsEndsWithAnEmptySummary) {
  Start();
  const Received received = Exchange({First({})});
  ASSERT_TRUE(received.status.ok()) << received.status.error_message();
  ASSERT_EQ(received.responses.size(), 2u);
  EXPECT_TRUE(received.responses[0].has_limits());
  EXPECT_TRUE(received.responses[1].has_summary());
  EXPECT_EQ(received.responses[1].summary().items(), 0u);
}

TEST_F(EmbedStreamTest, BadItemsFailAloneAndAreCounted) {
  Start();
  std::vector<v1::EmbedStreamRequest> messages = {First({"good", "bad\xff", ""}),
                                                  Message({"good", std::string(600, 'x')})};
  messages[1].add_inputs()->mutable_token_ids()->add_ids(1000);
  const Received received = Exchange(messages);
  ASSERT_TRUE(received.status.ok()) << received.status.error_message();
  ASSERT_EQ(received.results.size(), 6u);
  std::map<uint64_t, v1::EmbedResult> by_index;
  for (const v1::EmbedResult& result : received.results) {
    if (result.index() == 0 || result.index() == 3) {
      EXPECT_EQ(result.embedding().data(), VectorOf("good"));
    } else {
      EXPECT_EQ(result.error().code(), grpc::StatusCode::INVALID_ARGUMENT);
    }
    by_index[result.index()] = result;
  }
  EXPECT_THAT(by_index[1].error().message(), HasSubstr("byte 3"));
  // A path within its own message.
  EXPECT_EQ(ViolatedField(by_index[5].error()), "inputs[2].token_ids");
  const v1::StreamSummary& summary = received.responses.back().summary();
  EXPECT_EQ(summary.usage().succeeded(), 2u);
  EXPECT_EQ(summary.usage().failed(), 4u);
  EXPECT_EQ(summary.failures_by_code().at(grpc::StatusCode::INVALID_ARGUMENT), 4u);
}

TEST_F(EmbedStreamTest, ResultsComeInOrderIfAsked) {
  // Short inputs come out before long ones.
  Start({.backend = {.token_us = 1}});
  for (const bool in_order : {false, true}) {
    grpc::ClientContext context;
    auto stream = stub_->EmbedStream(&context);
    std::thread writer([&] {
      stream->Write(First({}, in_order));
      for (int m = 0; m < 20; ++m) {
        std::vector<std::string> texts;
        for (int i = 0; i < 20; ++i) texts.emplace_back(i % 7 == 0 ? 500 : 1 + i % 5, 'x');
        texts.emplace_back();
        stream->Write(Message(texts));
      }
      stream->WritesDone();
    });
    const Received received = ReadAll(stream.get());
    writer.join();
    ASSERT_TRUE(received.status.ok()) << received.status.error_message();
    ASSERT_EQ(received.results.size(), 420u);
    std::vector<uint64_t> order;
    for (const v1::EmbedResult& result : received.results) order.push_back(result.index());
    EXPECT_EQ(std::is_sorted(order.begin(), order.end()), in_order);
  }
}

TEST_F(EmbedStreamTest, TenThousandItemsPassThroughSmallLimits) {
  Start({.service = {.max_stream_items = 64, .max_stream_tokens = 2000, .server_version = ""}});
  std::vector<v1::EmbedStreamRequest> messages = {First({}, /*in_order=*/true)};
  for (int m = 0; m < 100; ++m) {
    std::vector<std::string> texts;
    for (int i = 0; i < 100; ++i) texts.push_back(absl::StrCat(100 * m + i));
    texts[50] = std::string(510, 'l');
    messages.push_back(Message(texts));
  }
  const Received received = Exchange(messages);
  ASSERT_TRUE(received.status.ok()) << received.status.error_message();
  ASSERT_EQ(received.results.size(), 10'000u);
  for (uint64_t i = 0; i < received.results.size(); ++i) {
    ASSERT_EQ(received.results[i].index(), i);
    ASSERT_EQ(received.results[i].embedding().data(),
              VectorOf(i % 100 == 50 ? std::string(510, 'l') : absl::StrCat(i)));
  }
  EXPECT_EQ(received.responses.back().summary().items(), 10'000u);
}

TEST_F(EmbedStreamTest, AFullQueueHoldsTheStreamUpInsteadOfFailingIt) {
  Embedder::Options small;
  small.scheduler.max_queued_tasks = 3;
  Start({.embedder = small});
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i) texts.push_back(absl::StrCat(i));
  const Received received = Exchange({First(texts), Message(texts)});
  ASSERT_TRUE(received.status.ok()) << received.status.error_message();
  EXPECT_EQ(received.responses.back().summary().usage().succeeded(), 400u);
}

TEST_F(EmbedStreamTest, NoMoreIsReadThanTheLimitsAllow) {
  Start({.service = {.max_stream_items = 10, .server_version = ""}});
  gate_.Close();
  auto stream = Open();
  stream->Write(First({}));
  // Of messages of 5 items the first two are read; the third only when there is room.
  for (int m = 0; m < 4; ++m) stream->Write(Message({"a", "b", "c", "d", "e"}));
  const auto items = [this] {
    const QueueSnapshot now = embedder_->Snapshot();
    return now.lanes[1].tasks + now.running_tasks;
  };
  while (items() < 10) absl::SleepFor(absl::Milliseconds(1));
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(items(), 10);
  gate_.Open();
  stream->WritesDone();
  const Received received = ReadAll(stream.get());
  EXPECT_TRUE(received.status.ok()) << received.status.error_message();
  EXPECT_EQ(received.results.size(), 20u);
}

TEST_F(EmbedStreamTest, AClientThatDoesNotReadHoldsUpOnlyItself) {
  Start({.service = {.max_stream_items = 100, .server_version = ""}});
  auto stream = Open();
  stream->Write(First({}));
  // Far more results than the transport's window takes.
  std::thread writer([&stream] {
    for (int m = 0; m < 200; ++m) {
      if (!stream->Write(Message(std::vector<std::string>(50, absl::StrCat(m))))) return;
    }
    stream->WritesDone();
  });
  int64_t passes = -1;
  // Until the server has stopped taking more.
  while (passes != backend_->TokensRun()) {
    passes = backend_->TokensRun();
    absl::SleepFor(absl::Milliseconds(50));
  }
  v1::EmbedResponse response;
  EXPECT_TRUE(Embed(Request({"other"}), &response).ok());
  const Received received = ReadAll(stream.get());
  writer.join();
  EXPECT_TRUE(received.status.ok()) << received.status.error_message();
  EXPECT_EQ(received.results.size(), 10'000u);
}

TEST_F(EmbedStreamTest, BreachesOfTheProtocolEndTheStreamByName) {
  Start({.service = {.max_items_per_request = 2, .server_version = ""}});
  const auto expect = [this](std::vector<v1::EmbedStreamRequest> messages, const char* field,
                             const char* part) {
    grpc::ClientContext context;
    auto stream = stub_->EmbedStream(&context);
    for (const v1::EmbedStreamRequest& message : messages) stream->Write(message);
    stream->WritesDone();
    const Received received = ReadAll(stream.get());
    EXPECT_EQ(received.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << part;
    EXPECT_EQ(ViolatedField(received.status), field);
    EXPECT_THAT(received.status.error_message(), HasSubstr(part));
  };
  expect({}, "start", "no message");
  expect({Message({"t"})}, "start", "first message");
  expect({First({"t"}), First({"t"})}, "start", "first message only");
  expect({First({"a", "b", "c"})}, "inputs", "there are 3");
  v1::EmbedStreamRequest first = First({"t"});
  first.mutable_start()->mutable_options()->set_dimensions(0);
  expect({first}, "start.options.dimensions", "is 0");
  first = First({"t"});
  first.mutable_start()->set_model("bad\xff");
  expect({first}, "start.model", "byte 3");
}

TEST_F(EmbedStreamTest, AnotherModelIsNotFound) {
  Start();
  v1::EmbedStreamRequest first = First({"t"});
  first.mutable_start()->set_model("other");
  EXPECT_EQ(Exchange({first}).status.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(EmbedStreamTest, ACancelledStreamLetsGoOfItsItems) {
  Start();
  gate_.Close();
  auto stream = Open();
  stream->Write(First(std::vector<std::string>(100, "text")));
  gate_.AwaitWaiter();
  context_.TryCancel();
  EXPECT_EQ(ReadAll(stream.get()).status.error_code(), grpc::StatusCode::CANCELLED);
  AwaitServerCaughtUp();
  gate_.Open();
  EXPECT_EQ(observer_.Reports(Rpc::kEmbedStream, 1)[0].code, absl::StatusCode::kCancelled);
}

TEST_F(EmbedStreamTest, ADeadlineEndsAStream) {
  Start();
  gate_.Close();
  context_.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  auto stream = Open();
  stream->Write(First({"text"}));
  EXPECT_EQ(ReadAll(stream.get()).status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  AwaitServerCaughtUp();
  gate_.Open();
  EXPECT_NE(observer_.Reports(Rpc::kEmbedStream, 1)[0].code, absl::StatusCode::kOk);
}

TEST_F(EmbedStreamTest, ADrainAnswersWhatWasReadAndEndsTheStream) {
  Start();
  gate_.Close();
  auto stream = Open();
  stream->Write(First({"accepted"}));
  gate_.AwaitWaiter();
  state_.Drain();
  stream->Write(Message({"late"}));
  gate_.Open();
  const Received received = ReadAll(stream.get());
  EXPECT_EQ(received.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  ASSERT_EQ(received.results.size(), 1u);
  EXPECT_EQ(received.results[0].embedding().data(), VectorOf("accepted"));
}

TEST_F(EmbedStreamTest, ConcurrentStreamsAndCallsGetTheirOwn) {
  Start();
  std::vector<std::thread> clients;
  for (int c = 0; c < 6; ++c) {
    clients.emplace_back([this, c] {
      auto stub = v1::EmbedService::NewStub(NewChannel());
      grpc::ClientContext context;
      auto stream = stub->EmbedStream(&context);
      std::thread writer([&] {
        stream->Write(First({}, c % 2 == 0));
        for (int m = 0; m < 30; ++m) {
          std::vector<std::string> texts(20, absl::StrCat(c));
          stream->Write(Message(texts));
        }
        stream->WritesDone();
      });
      const Received received = ReadAll(stream.get());
      writer.join();
      EXPECT_TRUE(received.status.ok()) << received.status.error_message();
      EXPECT_EQ(received.results.size(), 600u);
      for (const v1::EmbedResult& result : received.results) {
        ASSERT_EQ(result.embedding().data(), VectorOf(absl::StrCat(c)));
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

}  // namespace
}  // namespace quiver
