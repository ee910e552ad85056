// Client::Embed over servers without gRPC.
#include <atomic>
#include <filesystem>
#include <iterator>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "tests/tools/client/client_rig.h"
#include "tools/client/resolver.h"
#include "tools/client/rpc_status.h"

namespace quiver::client {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;

using ClientCalls = ClientTest;

google::rpc::Status Refusal(absl::Duration wait) {
  google::rpc::RetryInfo info;
  info.mutable_retry_delay()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(wait)));
  google::rpc::Status status;
  status.set_code(static_cast<int>(absl::StatusCode::kResourceExhausted));
  status.set_message("full");
  status.add_details()->PackFrom(info);
  return status;
}

TEST_F(ClientCalls, VectorsComeInOrderFromRequestsThatFitTheServer) {
  Connect({{.max_items_per_request = 8}});
  auto reply = client_->Embed(Texts(100));
  ASSERT_TRUE(reply.ok()) << reply.status();
  ExpectVectors(*reply, 100);
  EXPECT_EQ(reply->space.fingerprint, "space");
  EXPECT_EQ(reply->results[2]->token_count, 3);
  EXPECT_EQ(server(0).requests(), 13);
  EXPECT_EQ(server(0).largest_request(), 8);
}

TEST_F(ClientCalls, ARetryComesNotBeforeTheServersRetryInfo) {
  constexpr absl::Duration kWait = absl::Milliseconds(150);
  std::atomic<int> tries{0};
  Connect({{.on_input = [&](const v1::Input&, v1::EmbedResult*) {
    return ++tries == 1 ? FromRpcStatus(Refusal(kWait)) : absl::OkStatus();
  }}});
  auto reply = client_->Embed({"a"});
  ASSERT_TRUE(reply.ok()) << reply.status();
  const std::vector<absl::Time> times = server(0).times();
  ASSERT_EQ(times.size(), 2u);
  EXPECT_THAT(times[1] - times[0], Ge(kWait));
}

TEST_F(ClientCalls, ADeadlineThatLeavesNoTimeForTheServersWaitEndsTheCallWithItsError) {
  Connect({{.on_input = [&](const v1::Input&, v1::EmbedResult*) {
    return FromRpcStatus(Refusal(absl::Milliseconds(900)));
  }}});
  auto reply = client_->Embed({"a"}, {}, {.timeout = absl::Milliseconds(800)});
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(reply.status().message()),
              AllOf(HasSubstr("full"), HasSubstr("deadline")));
  EXPECT_EQ(RetryDelay(reply.status()), absl::Milliseconds(900));
  EXPECT_EQ(server(0).requests(), 1);
}

TEST_F(ClientCalls, TriesEndAtTheirBoundAndAtWhatIsNotRetryable) {
  absl::Status outcome = absl::UnavailableError("draining");
  Connect({{.on_input = [&](const v1::Input&, v1::EmbedResult*) { return outcome; }}});
  auto reply = client_->Embed({"a"});
  EXPECT_EQ(reply.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(reply.status().message()),
              AllOf(HasSubstr("0: draining"), HasSubstr("4 tries")));
  EXPECT_EQ(server(0).requests(), 4);

  outcome = absl::PermissionDeniedError("no");
  EXPECT_EQ(client_->Embed({"a"}).status(), outcome);
  EXPECT_EQ(server(0).requests(), 5);
}

TEST_F(ClientCalls, AFailingInputLeavesItsNeighboursAndARefusedOneIsSentAgainAlone) {
  std::atomic<int> refused{0};
  std::atomic<int> inputs{0};
  Connect({{.on_input = [&](const v1::Input& input, v1::EmbedResult* result) {
    ++inputs;
    if (input.text() == "xx") {
      result->mutable_error()->set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
      google::rpc::BadRequest bad;
      auto* violation = bad.add_field_violations();
      violation->set_field("inputs[1].text");
      violation->set_description("must be good");
      result->mutable_error()->add_details()->PackFrom(bad);
    } else if (input.text() == "xxx" && refused++ == 0) {
      *result->mutable_error() = Refusal(absl::Milliseconds(1));
    }
    return absl::OkStatus();
  }}});
  auto reply = client_->Embed(Texts(4));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(ErrorField(reply->results[1].status()), "text");
  EXPECT_EQ(reply->results[1].status().message(), "text: must be good");
  for (size_t i : {0, 2, 3}) EXPECT_TRUE(reply->results[i].ok()) << i;
  EXPECT_EQ(inputs, 5);
}

TEST_F(ClientCalls, AnInputThatFitsNoMessageFailsAlone) {
  Connect({{}});
  auto reply = client_->Embed({"a", std::string(1 << 20, 'x'), "b"});
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_TRUE(reply->results[0].ok() && reply->results[2].ok());
  EXPECT_THAT(std::string(reply->results[1].status().message()), HasSubstr("it has 1048576"));
}

TEST_F(ClientCalls, AHedgeWinsWhenTheFirstServerStalls) {
  ClientOptions options = Quick();
  options.hedge_after = absl::Milliseconds(30);
  Connect({{}, {}}, options);
  ASSERT_TRUE(client_->GetModelInfo().ok());
  server(0).Stall();
  // Equal servers take turns: one of the calls at least goes to the first.
  for (int i = 0; i < 3; ++i) {
    auto reply = client_->Embed({"x"});
    ASSERT_TRUE(reply.ok()) << reply.status();
    ExpectVectors(*reply, 1);
  }
  client_.reset();
  EXPECT_EQ(server(0).items(), 0);
  EXPECT_EQ(server(1).items(), 3);
  EXPECT_GE(server(0).cancelled(), 1);
}

TEST_F(ClientCalls, OfTwoServersAKilledOneLosesNoInput) {
  Connect({{.item_time = absl::Milliseconds(1)}, {.item_time = absl::Milliseconds(1)}});
  std::thread killer([&] {
    server(0).AwaitRequests(3);
    server(0).Kill();
  });
  auto reply = client_->Embed(Texts(200));
  killer.join();
  ASSERT_TRUE(reply.ok()) << reply.status();
  ExpectVectors(*reply, 200);
  EXPECT_GT(server(0).items(), 0);
}

TEST_F(ClientCalls, AServerTenTimesAsSlowIsGivenFewerInputs) {
  Connect({{.item_time = absl::Milliseconds(20)}, {.item_time = absl::Milliseconds(2)}});
  auto reply = client_->Embed(Texts(240));
  ASSERT_TRUE(reply.ok()) << reply.status();
  ExpectVectors(*reply, 240);
  EXPECT_EQ(items(), 240);
  // Turns would give each half.
  EXPECT_GT(server(1).items(), 2 * server(0).items());
  EXPECT_GT(server(0).items(), 0);
}

TEST_F(ClientCalls, ServersOfDifferentSpacesAreNotMixed) {
  Connect({{.fingerprint = "one"}, {.fingerprint = "two"}});
  const absl::Status status = client_->Embed(Texts(64)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("'one'"), HasSubstr("'two'")));
}

TEST_F(ClientCalls, ANamesNewAddressIsUsedAndAnOldOneLeft) {
  Connect({{}, {}});
  Show(1);
  const auto only = [&](size_t used, size_t unused) {
    for (int clean = 0; clean < 20;) {
      const int before = server(unused).items();
      const int used_before = server(used).items();
      for (int i = 0; i < 4; ++i) EXPECT_TRUE(client_->Embed({"a"}).ok());
      clean =
          server(unused).items() == before && server(used).items() > used_before ? clean + 1 : 0;
    }
  };
  only(0, 1);
  Show(2);
  const int before = server(1).items();
  while (server(1).items() == before) EXPECT_TRUE(client_->Embed({"a"}).ok());
}

TEST_F(ClientCalls, ACancelledCallEndsAndItsRequestToo) {
  Connect({{}});
  ASSERT_TRUE(client_->GetModelInfo().ok());
  server(0).Stall();
  Cancellation cancellation;
  absl::Notification done;
  client_->EmbedAsync({"a"}, {}, {.cancellation = &cancellation},
                      [&](absl::StatusOr<EmbedReply> reply) {
                        EXPECT_TRUE(absl::IsCancelled(reply.status())) << reply.status();
                        done.Notify();
                      });
  cancellation.Cancel();
  done.WaitForNotification();
  EXPECT_TRUE(
      absl::IsCancelled(client_->Embed({"b"}, {}, {.cancellation = &cancellation}).status()));
}

TEST_F(ClientCalls, DestructionEndsEveryCallOnce) {
  Connect({{}, {}});
  ASSERT_TRUE(client_->GetModelInfo().ok());
  server(0).Stall();
  server(1).Stall();
  std::atomic<int> cancelled{0};
  for (int i = 0; i < 50; ++i) {
    client_->EmbedAsync(Texts(20), {}, {}, [&](absl::StatusOr<EmbedReply> reply) {
      if (absl::IsCancelled(reply.status())) ++cancelled;
    });
  }
  client_.reset();
  EXPECT_EQ(cancelled, 50);
}

TEST_F(ClientCalls, DestructionLeavesNoThread) {
  const auto threads = [] {
    const std::filesystem::directory_iterator all("/proc/self/task");
    return std::distance(begin(all), end(all));
  };
  Connect({{}});
  // Up to here, beside the fake server's, the client's own.
  const auto with_client = threads();
  ASSERT_TRUE(client_->Embed({"a"}).ok());
  client_.reset();
  // The kernel forgets a thread a little after it was joined.
  const absl::Time end = absl::Now() + absl::Seconds(30);
  while (threads() != with_client - 2 && absl::Now() < end) std::this_thread::yield();
  EXPECT_EQ(threads(), with_client - 2);
}

TEST_F(ClientCalls, ManyThreadsShareAClientWhileServersComeAndGo) {
  ClientOptions options = Quick();
  options.hedge_after = absl::Milliseconds(1);
  options.retry.max_tries = 50;
  Connect({{}, {}, {}}, options);
  std::atomic<bool> stop{false};
  std::thread killer([&] {
    for (size_t i = 0; !stop; ++i) {
      server(i % 3).Kill();
      absl::SleepFor(absl::Milliseconds(2));
      server(i % 3).Revive();
    }
  });
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      for (int j = 0; j < 50; ++j) {
        auto reply = client_->Embed(Texts(20));
        ASSERT_TRUE(reply.ok()) << reply.status();
        ExpectVectors(*reply, 20);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  stop = true;
  killer.join();
}

TEST_F(ClientCalls, ACallbackMayStartACallButNotWaitForOne) {
  Connect({{}});
  absl::Notification done;
  client_->EmbedAsync({"a"}, {}, {}, [&](const absl::StatusOr<EmbedReply>&) {
    EXPECT_TRUE(absl::IsFailedPrecondition(client_->Embed({"b"}).status()));
    client_->EmbedAsync({"c"}, {}, {}, [&](const absl::StatusOr<EmbedReply>& reply) {
      EXPECT_TRUE(reply.ok()) << reply.status();
      done.Notify();
    });
  });
  done.WaitForNotification();
}

TEST(ClientOptionsTest, AFieldThatCannotBeUsedIsNamed) {
  const auto field = [](ClientOptions options) {
    return ErrorField(Client::Create(std::move(options)).status());
  };
  EXPECT_EQ(field({}), "servers");
  EXPECT_EQ(field({.servers = {"no port"}}), "servers");
  EXPECT_EQ(field({.servers = {"127.0.0.1:1"}, .connection = {.api_key = "two words"}}), "api_key");
  EXPECT_EQ(field({.servers = {"127.0.0.1:1"}, .connection = {.tls_server_name = "x"}}),
            "tls_server_name");
  EXPECT_EQ(field({.servers = {"127.0.0.1:1"}, .retry = {.max_tries = 0}}), "retry.max_tries");
  EXPECT_EQ(field({.servers = {"127.0.0.1:1"}, .hedge_after = absl::ZeroDuration()}),
            "hedge_after");
}

TEST(LookUpTest, AddressesAreThoseOfTheHostWithItsPort) {
  const auto targets = [](const std::string& server) {
    const absl::StatusOr<std::vector<Address>> addresses = LookUp(server);
    EXPECT_TRUE(addresses.ok()) << addresses.status();
    std::vector<std::string> out;
    if (!addresses.ok()) return out;
    for (const Address& address : *addresses) out.push_back(address.target);
    return out;
  };
  EXPECT_THAT(targets("127.0.0.1:5"), ElementsAre("127.0.0.1:5"));
  EXPECT_THAT(targets("[::1]:5"), ElementsAre("[::1]:5"));
  // One machine, of which gRPC tries every address.
  EXPECT_THAT(targets("localhost:5"), ElementsAre("localhost:5"));
  EXPECT_THAT(targets("unix:/a/socket"), ElementsAre("unix:/a/socket"));
  for (const char* wrong : {"host", ":5", "host:", "host:0", "host:65536", "host:x"}) {
    EXPECT_EQ(ErrorField(LookUp(wrong).status()), "servers") << wrong;
  }
}

TEST(EmbeddingTest, FloatsAreTheValuesOfEachType) {
  const auto floats = [](ElementType type, int dimensions, std::string data, float scale = 0) {
    return Embedding{
        .data = std::move(data), .type = type, .dimensions = dimensions, .scale = scale}
        .Floats();
  };
  EXPECT_THAT(floats(ElementType::kFloat32, 1, std::string("\x00\x00\x80\x3F", 4)),
              ElementsAre(1.f));
  // 1, -2, the smallest subnormal, 65504.
  EXPECT_THAT(floats(ElementType::kFloat16, 4, std::string("\x00\x3C\x00\xC0\x01\x00\xFF\x7B", 8)),
              ElementsAre(1.f, -2.f, 0x1p-24f, 65504.f));
  EXPECT_THAT(floats(ElementType::kBfloat16, 2, std::string("\x80\x3F\x00\xC0", 4)),
              ElementsAre(1.f, -2.f));
  EXPECT_THAT(floats(ElementType::kInt8, 2, "\xFE\x7F", 0.5f), ElementsAre(-1.f, 63.5f));
  EXPECT_THAT(floats(ElementType::kBinary, 3, "\xA0"), ElementsAre(1.f, -1.f, 1.f));
}

}  // namespace
}  // namespace quiver::client
