// EmbedStream over servers without gRPC.
#include <atomic>
#include <thread>

#include "tests/tools/client/client_rig.h"

namespace quiver::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using ClientStream = ClientTest;

std::unique_ptr<EmbedStream> Opened(Client* client, const StreamOptions& options = {}) {
  auto stream = client->OpenStream({}, options);
  EXPECT_TRUE(stream.ok()) << stream.status();
  return stream.ok() ? *std::move(stream) : nullptr;
}

TEST_F(ClientStream, EachInputHasOneResultAndMessagesFitTheServer) {
  Connect({{.max_items_per_request = 8}});
  auto stream = Opened(client_.get());
  EXPECT_EQ(stream->space().fingerprint, "space");
  ExpectEachOnce(Stream(stream.get(), 1000), 1000);
  EXPECT_TRUE(stream->Finish().ok()) << stream->Finish();
  EXPECT_EQ(server(0).largest_request(), 8);
  EXPECT_EQ(server(0).items(), 1000);
}

TEST_F(ClientStream, AnIdleWriterHoldsNothingBack) {
  Connect({{}});
  auto stream = Opened(client_.get());
  StreamResult result;
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(stream->Write("x", i));
    ASSERT_TRUE(stream->Read(&result));
    EXPECT_EQ(result.key, i);
  }
}

TEST_F(ClientStream, OfTwoServersAKilledOneLosesNoInput) {
  Connect({{.item_time = absl::Microseconds(100)}, {.item_time = absl::Microseconds(100)}});
  auto stream = Opened(client_.get());
  // When both have work.
  const auto kill = [&] {
    server(0).AwaitRequests(2);
    server(1).AwaitRequests(2);
    server(0).Kill();
  };
  ExpectEachOnce(Stream(stream.get(), 2000, kill), 2000);
  EXPECT_TRUE(stream->Finish().ok()) << stream->Finish();
}

TEST_F(ClientStream, AServerThatComesBackGetsTheRest) {
  ClientOptions options = Quick();
  options.retry.max_tries = 1000;
  Connect({{.item_time = absl::Microseconds(100)}}, options);
  auto stream = Opened(client_.get());
  const auto restart = [&] {
    server(0).AwaitRequests(2);
    server(0).Kill();
    server(0).Revive();
  };
  ExpectEachOnce(Stream(stream.get(), 1000, restart), 1000);
  EXPECT_TRUE(stream->Finish().ok()) << stream->Finish();
}

TEST_F(ClientStream, ServersThatStayAwayFailTheStreamAndEveryInputWithIt) {
  Connect({{}, {}});
  auto stream = Opened(client_.get());
  server(0).Kill();
  server(1).Kill();
  int failed = 0;
  std::thread writer([&] {
    for (uint64_t i = 0; i < 100 && stream->Write("x", i); ++i) {
    }
    stream->WritesDone();
  });
  StreamResult result;
  while (stream->Read(&result)) {
    EXPECT_TRUE(absl::IsUnavailable(result.embedding.status()));
    ++failed;
  }
  writer.join();
  EXPECT_GT(failed, 0);
  EXPECT_TRUE(absl::IsUnavailable(stream->Finish())) << stream->Finish();
}

TEST_F(ClientStream, AnInputThatBreaksEveryStreamIsGivenUp) {
  ClientOptions options = Quick();
  options.retry.max_tries = 1000;
  options.retry.max_wait = absl::Milliseconds(4);
  Connect({{.on_input =
                [](const v1::Input& input, v1::EmbedResult*) {
                  return input.text() == "bad" ? absl::UnavailableError("crashed")
                                               : absl::OkStatus();
                }}},
          options);
  auto stream = Opened(client_.get(), {.max_sends = 3});
  ASSERT_TRUE(stream->Write("bad", 7));
  StreamResult result;
  ASSERT_TRUE(stream->Read(&result));
  EXPECT_EQ(result.key, 7u);
  EXPECT_THAT(std::string(result.embedding.status().message()), HasSubstr("crashed"));
  ExpectEachOnce(Stream(stream.get(), 20), 20);
}

TEST_F(ClientStream, AServerTenTimesAsSlowIsGivenFewerInputs) {
  Connect({{.item_time = absl::Milliseconds(5), .max_items_per_request = 64},
           {.item_time = absl::Microseconds(500), .max_items_per_request = 64}});
  auto stream = Opened(client_.get());
  ExpectEachOnce(Stream(stream.get(), 1500), 1500);
  EXPECT_GT(server(1).items(), 2 * server(0).items());
  EXPECT_GT(server(0).items(), 0);
}

TEST_F(ClientStream, ServersOfDifferentSpacesAreNotMixed) {
  Connect({{.item_time = absl::Microseconds(50), .fingerprint = "one"},
           {.item_time = absl::Microseconds(50), .fingerprint = "two"}});
  auto stream = Opened(client_.get());
  std::thread writer([&] {
    for (uint64_t i = 0; stream->Write("x", i); ++i) {
    }
  });
  StreamResult result;
  while (stream->Read(&result)) {
  }
  writer.join();
  EXPECT_EQ(stream->Finish().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(stream->Finish().message()),
              AllOf(HasSubstr("'one'"), HasSubstr("'two'")));
}

TEST_F(ClientStream, WriteWaitsForTheReader) {
  Connect({{}});
  auto stream = Opened(client_.get(), {.max_items_in_flight = 10});
  std::atomic<int> written{0};
  std::thread writer([&] {
    for (uint64_t i = 0; i < 100; ++i) {
      ASSERT_TRUE(stream->Write("x", i));
      ++written;
    }
    stream->WritesDone();
  });
  StreamResult result;
  for (int read = 0; read < 100; ++read) {
    // The one that waits may have been let in.
    EXPECT_LE(written, read + 10);
    ASSERT_TRUE(stream->Read(&result));
  }
  EXPECT_FALSE(stream->Read(&result));
  writer.join();
}

TEST_F(ClientStream, AnInputAloneIsSentBeforeLong) {
  Connect({{}});
  auto stream = Opened(client_.get());
  StreamResult result;
  for (uint64_t i = 0; i < 50; ++i) {
    ASSERT_TRUE(stream->Write("x", i));
    ASSERT_TRUE(stream->Read(&result));
    // So that nothing is under way that would send the next one along.
    absl::SleepFor(absl::Milliseconds(2));
  }
}

TEST_F(ClientStream, ACancelledStreamEndsAtBothEnds) {
  Connect({{}, {}});
  auto stream = Opened(client_.get(), {.max_items_in_flight = 10});
  server(0).Stall();
  server(1).Stall();
  std::thread writer([&] {
    for (uint64_t i = 0; stream->Write("x", i); ++i) {
    }
  });
  stream->Cancel();
  StreamResult result;
  while (stream->Read(&result)) EXPECT_FALSE(result.embedding.ok());
  writer.join();
  EXPECT_TRUE(absl::IsCancelled(stream->Finish()));
}

TEST_F(ClientStream, TheDeadlineEndsAStreamThatWaits) {
  Connect({{}});
  auto stream = Opened(client_.get(), {.deadline = absl::Now() + absl::Milliseconds(300)});
  server(0).Stall();
  ASSERT_TRUE(stream->Write("x", 1));
  StreamResult result;
  ASSERT_TRUE(stream->Read(&result));
  EXPECT_TRUE(absl::IsDeadlineExceeded(result.embedding.status()));
  EXPECT_FALSE(stream->Read(&result));
  EXPECT_TRUE(absl::IsDeadlineExceeded(stream->Finish()));
}

TEST_F(ClientStream, AStreamLeftInTheMiddleLeavesNothingBehind) {
  Connect({{.item_time = absl::Microseconds(50)}, {.item_time = absl::Microseconds(50)}});
  for (int i = 0; i < 20; ++i) {
    auto stream = Opened(client_.get());
    for (uint64_t j = 0; j < 200; ++j) ASSERT_TRUE(stream->Write("x", j));
  }
  client_.reset();
}

}  // namespace
}  // namespace quiver::client
