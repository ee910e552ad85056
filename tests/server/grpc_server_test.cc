#include "server/grpc_server.h"

#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "tests/server/service_fixture.h"

namespace quiver {
namespace {

using ::testing::HasSubstr;

constexpr char kService[] = "quiver.v1.EmbedService";

class GrpcServerTest : public ServiceTest {
 protected:
  // The status byte of grpc.health.v1's Check: 1 is SERVING, 2 NOT_SERVING, -1 an error.
  int Health(const std::string& service) {
    // HealthCheckRequest{service} and HealthCheckResponse{status}, both field 1.
    std::string bytes;
    if (!service.empty())
      bytes = absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
    grpc::Slice slice(bytes);
    grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::ClientContext context;
    absl::Notification done;
    grpc::Status status;
    grpc::GenericStub(channel_).UnaryCall(&context, "/grpc.health.v1.Health/Check", {}, &request,
                                          &response, [&](grpc::Status s) {
                                            status = s;
                                            done.Notify();
                                          });
    done.WaitForNotification();
    grpc::Slice reply;
    if (!status.ok() || !response.DumpToSingleSlice(&reply).ok() || reply.size() != 2) return -1;
    return reply.begin()[1];
  }
};

TEST_F(GrpcServerTest, HealthIsNotServingUntilSaidAndForBothNames) {
  Start();
  for (const char* name : {"", kService}) EXPECT_EQ(Health(name), 2) << name;
  server_->SetServing(true);
  for (const char* name : {"", kService}) EXPECT_EQ(Health(name), 1) << name;
  server_->SetServing(false);
  for (const char* name : {"", kService}) EXPECT_EQ(Health(name), 2) << name;
  EXPECT_EQ(Health("another"), -1);
}

TEST_F(GrpcServerTest, HealthIsAnsweredWhileTheEngineIsBusy) {
  Start();
  server_->SetServing(true);
  gate_.Close();
  std::thread busy([this] {
    v1::EmbedResponse response;
    EXPECT_TRUE(Embed(Request({"t"}), &response).ok());
  });
  gate_.AwaitWaiter();
  EXPECT_EQ(Health(kService), 1);
  gate_.Open();
  busy.join();
}

TEST_F(GrpcServerTest, AnyFreePortIsToldAndATakenOneRefusedByName) {
  Start();
  EXPECT_GT(server_->port(), 0);
  EXPECT_EQ(server_->address(), absl::StrCat("127.0.0.1:", server_->port()));
  EmbedService other({.server_version = ""}, model_.get(), calls_.get(), nullptr);
  const auto second = GrpcServer::Create({.port = server_->port()}, &other, kService);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(server_->address()));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("in use"));
}

TEST_F(GrpcServerTest, AHostThatIsNotOursIsRefusedByName) {
  Start();
  EmbedService other({.server_version = ""}, model_.get(), calls_.get(), nullptr);
  const auto server = GrpcServer::Create({.host = "192.0.2.1", .port = 0}, &other, kService);
  EXPECT_EQ(server.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(server.status().message()), HasSubstr("192.0.2.1:0"));
}

TEST_F(GrpcServerTest, AMessageOverTheLimitIsRefused) {
  Start();
  v1::EmbedResponse response;
  EXPECT_EQ(Embed(Request({std::string(33 << 20, 'x')}), &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Embed(Request({"t"}), &response).ok());
}

TEST_F(GrpcServerTest, AShutdownCutsOffIdleStreams) {
  Start();
  grpc::ClientContext context;
  auto stream = stub_->EmbedStream(&context);
  v1::EmbedStreamRequest first;
  first.mutable_start();
  stream->Write(first);
  v1::EmbedStreamResponse response;
  ASSERT_TRUE(stream->Read(&response));
  state_.Drain();
  EXPECT_TRUE(embedder_->Drain(absl::InfiniteFuture()));
  server_->Shutdown(absl::Milliseconds(10));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_FALSE(stream->Finish().ok());
}

}  // namespace
}  // namespace quiver
