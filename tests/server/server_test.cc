#include "server/server.h"

#include <poll.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "quiver/v1/embed.grpc.pb.h"
#include "server/operational_routes.h"
#include "server/scheduler_json.h"
#include "tests/server/raw_http_client.h"
#include "tests/testing/fake_embedder.h"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

// The answer of grpc.health.v1 as its enum's number; -1 if the call fails. Its messages are one
// field each, so that no stub is needed.
int Health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  std::string request;
  if (!service.empty()) {
    request = absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
  }
  const grpc::Slice slice(request);
  const grpc::ByteBuffer bytes(&slice, 1);
  grpc::ByteBuffer reply;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  grpc::GenericStub stub(channel);
  absl::Notification done;
  grpc::Status status;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", grpc::StubOptions(), &bytes, &reply,
                 [&](grpc::Status result) {
                   status = std::move(result);
                   done.Notify();
                 });
  done.WaitForNotification();
  grpc::Slice whole;
  if (!status.ok() || !reply.DumpToSingleSlice(&whole).ok()) return -1;
  return whole.size() == 2 && whole.begin()[0] == 0x08 ? whole.begin()[1] : 0;
}
constexpr int kServing = 1;
constexpr int kNotServing = 2;

class ServerTest : public ::testing::Test {
 protected:
  void Create(const std::string& model_dir) {
    options_.embedder.model_dir = model_dir;
    options_.grpc_port = 0;
    options_.http_port = 0;
    options_.port_file = TestDir("server") + "/ports";
    auto server = Server::Create(options_, &logger_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    for (absl::string_view line : absl::StrSplit(ReadFile(options_.port_file), '\n')) {
      if (absl::ConsumePrefix(&line, "grpc=")) grpc_address_ = std::string(line);
      if (absl::ConsumePrefix(&line, "http=127.0.0.1:")) {
        ASSERT_TRUE(absl::SimpleAtoi(line, &http_port_));
      }
    }
    channel_ = grpc::CreateChannel(grpc_address_, grpc::InsecureChannelCredentials());
    stub_ = v1::EmbedService::NewStub(channel_);
  }

  RawHttpClient::Response Get(const std::string& path) {
    return RawHttpClient(http_port_).Get(path);
  }

  grpc::Status Embed(int texts, v1::EmbedResponse* response) {
    v1::EmbedRequest request;
    for (int i = 0; i < texts; ++i) request.add_inputs()->set_text(absl::StrCat("text ", i));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    return stub_->Embed(&context, request, response);
  }

  ServerOptions options_;
  Logger logger_{{LogFormat::kText, LogLevel::kError}};
  std::unique_ptr<Server> server_;
  std::string grpc_address_;
  int http_port_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::EmbedService::Stub> stub_;
};

TEST_F(ServerTest, EveryProbeFollowsThePhases) {
  const std::string service = v1::EmbedService::service_full_name();
  Create(MakeTinyModelDir(TinyModel()));
  EXPECT_EQ(Get("/health").status, 503);
  EXPECT_EQ(Get("/health").body, "{\"status\": \"starting\"}");
  EXPECT_EQ(Get("/readyz").status, 503);
  EXPECT_EQ(Get("/livez").status, 200);
  EXPECT_EQ(Get("/metrics").status, 200);
  EXPECT_EQ(Get("/debug/scheduler").status, 503);
  EXPECT_EQ(Health(channel_, ""), kNotServing);
  EXPECT_EQ(Health(channel_, service), kNotServing);
  v1::EmbedResponse response;
  EXPECT_EQ(Embed(1, &response).error_code(), grpc::StatusCode::UNAVAILABLE);

  ASSERT_TRUE(server_->Load().ok());
  EXPECT_EQ(Get("/health").status, 200);
  EXPECT_EQ(Get("/health").body, "{\"status\": \"healthy\"}");
  EXPECT_EQ(Get("/readyz").status, 200);
  EXPECT_EQ(Health(channel_, ""), kServing);
  EXPECT_EQ(Health(channel_, service), kServing);
  ASSERT_TRUE(Embed(3, &response).ok());
  EXPECT_EQ(response.results_size(), 3);
  const auto scheduler = nlohmann::json::parse(Get("/debug/scheduler").body);
  EXPECT_EQ(scheduler["queues"]["interactive"]["items"], 0);
  EXPECT_GT(scheduler["cost_model"]["token_us"], 0);
  const std::string metrics = Get("/metrics").body;
  EXPECT_THAT(metrics, HasSubstr("quiver_model_info{"));
  EXPECT_THAT(metrics, HasSubstr("quiver_serving_phase{phase=\"serving\"} 1"));

  EXPECT_TRUE(server_->Drain());
  EXPECT_FALSE(RawHttpClient(http_port_).connected());
}

TEST_F(ServerTest, LoadSaysWhatIsWrongWithTheModel) {
  Create(TestDir("empty-model"));
  const absl::Status status = server_->Load();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("config.json"));
  EXPECT_EQ(Get("/health").status, 503);
}

TEST_F(ServerTest, PortFileThatCannotBeWrittenIsNamed) {
  options_.embedder.model_dir = "organization/unused";
  options_.grpc_port = options_.http_port = 0;
  options_.port_file = "/nonexistent/ports";
  EXPECT_THAT(std::string(Server::Create(options_, &logger_).status().message()),
              HasSubstr("cannot write --port-file '/nonexistent/ports'"));
}

// What a client sees of a rolling restart: an answer, UNAVAILABLE, or CANCELLED for a call that
// crosses gRPC's own announcement that it shuts down.
TEST_F(ServerTest, DrainFinishesEveryRequestThatItDoesNotRefuse) {
  Create(MakeTinyModelDir(TinyModel()));
  ASSERT_TRUE(server_->Load().ok());
  std::atomic<int> answered{0};
  std::atomic<int> refused{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      while (refused < 4) {
        v1::EmbedResponse response;
        const grpc::Status status = Embed(8, &response);
        if (!status.ok()) {
          EXPECT_THAT(status.error_code(),
                      AnyOf(grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::CANCELLED));
          ++refused;
          continue;
        }
        ++answered;
        EXPECT_EQ(response.usage().succeeded(), 8u);
      }
    });
  }
  while (answered < 8) std::this_thread::yield();
  EXPECT_TRUE(server_->Drain());
  for (std::thread& client : clients) client.join();
}

TEST_F(ServerTest, ALostDeviceTakesTheServerOutOfService) {
  std::atomic<bool> broken{false};
  const auto state = [&] { return broken ? absl::InternalError("gone") : absl::OkStatus(); };
  Create(MakeTinyModelDir(TinyModel()));
  ASSERT_TRUE(
      server_
          ->Load([&](Embedder::Options options, SchedulerObserver* observer) {
            return MakeFakeEmbedder(
                std::move(options),
                {.on_begin = [&](const PackedBatch&) { return state(); }, .on_check_device = state},
                observer);
          })
          .ok());
  v1::EmbedResponse response;
  EXPECT_TRUE(Embed(1, &response).ok());
  pollfd lost = {server_->device_lost(), POLLIN, 0};
  EXPECT_EQ(poll(&lost, 1, 0), 0);

  broken = true;
  const grpc::Status status = Embed(1, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.results(0).error().code(), static_cast<int>(grpc::StatusCode::UNAVAILABLE));
  EXPECT_THAT(response.results(0).error().message(), HasSubstr("the device is lost: gone"));
  EXPECT_EQ(poll(&lost, 1, 20'000), 1);
  EXPECT_EQ(Get("/readyz").status, 503);
  EXPECT_EQ(Get("/livez").status, 200);
  EXPECT_EQ(Embed(1, &response).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(server_->Drain());
}

TEST_F(ServerTest, AModelThatCannotBeIsRefusedBeforeThePortsAreOpen) {
  options_.grpc_port = options_.http_port = 0;
  for (const char* model : {"/nonexistent/model", "./nothing", "no name"}) {
    options_.embedder.model_dir = model;
    const absl::Status status = Server::Create(options_, &logger_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--model: there is no directory"));
  }
}

TEST(OperationalRoutes, DrainingServerIsAliveButNotReady) {
  ServingState state;
  HttpRouter router;
  AddOperationalRoutes(&router, &state, [] { return "metrics"; });
  state.Drain();
  const auto get = [&](const char* path) {
    HttpResponse got;
    const HttpRouter::Match match = router.Find("GET", path);
    match.route->handler({}, HttpResponder([&](HttpResponse response) { got = response; }));
    return got;
  };
  EXPECT_EQ(get("/health").status, 503);
  EXPECT_EQ(get("/health").body, "{\"status\": \"draining\"}");
  EXPECT_EQ(get("/readyz").status, 503);
  EXPECT_EQ(get("/livez").status, 200);
  EXPECT_EQ(get("/metrics").body, "metrics");
}

TEST(SchedulerJsonTest, ShowsQueuesTenantsAndPasses) {
  QueueSnapshot snapshot;
  snapshot.draining = true;
  snapshot.lanes[1].tasks = 3;
  snapshot.lanes[1].oldest_age = absl::Milliseconds(7);
  snapshot.lanes[1].largest_tenants = {{"a\xff", 2, 40}};
  snapshot.passes.push_back({.lane = Lane::kBulk,
                             .tasks = 5,
                             .sequences = 4,
                             .tokens = 100,
                             .age = absl::Milliseconds(9),
                             .device_time = absl::Milliseconds(4),
                             .predicted = absl::Milliseconds(6),
                             .overtaken = 2});
  const auto json = nlohmann::json::parse(SchedulerJson(snapshot));
  EXPECT_EQ(json["draining"], true);
  EXPECT_EQ(json["queues"]["bulk"]["items"], 3);
  EXPECT_EQ(json["queues"]["bulk"]["oldest_age_ms"], 7);
  EXPECT_EQ(json["queues"]["bulk"]["largest_tenants"][0]["tenant"], "a\ufffd");
  EXPECT_EQ(json["queues"]["bulk"]["largest_tenants"][0]["tokens"], 40);
  EXPECT_EQ(json["queues"]["interactive"]["items"], 0);
  EXPECT_EQ(json["passes"][0]["lane"], "bulk");
  EXPECT_EQ(json["passes"][0]["device_time_ms"], 4);
  EXPECT_EQ(json["passes"][0]["predicted_ms"], 6);
  EXPECT_EQ(json["passes"][0]["overtaken"], 2);
}

class NoObserver : public RequestObserver {
 public:
  void OnRequestStart(Rpc) override {}
  void OnItems(Rpc, Lane, const ItemCounts&) override {}
  void OnRequestEnd(const RequestReport&) override {}
};

TEST(RequestsInFlight, CountsUnaryRequestsOnly) {
  NoObserver next;
  RequestsInFlight in_flight(&next);
  in_flight.OnRequestStart(Rpc::kEmbedStream);
  EXPECT_TRUE(in_flight.AwaitNone(absl::InfinitePast()));
  in_flight.OnRequestStart(Rpc::kEmbed);
  EXPECT_FALSE(in_flight.AwaitNone(absl::InfinitePast()));
  in_flight.OnRequestEnd(RequestReport());
  EXPECT_TRUE(in_flight.AwaitNone(absl::InfinitePast()));
}

}  // namespace
}  // namespace quiver
