// The client over gRPC, against servers that end in the middle.
#include <atomic>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "quiver/client.h"
#include "quiver/v1/embed.grpc.pb.h"

namespace quiver::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Stream = grpc::ServerReaderWriter<v1::EmbedStreamResponse, v1::EmbedStreamRequest>;

// Vectors of one element, the length of the text, at two a millisecond.
class Service : public v1::EmbedService::Service {
 public:
  grpc::Status GetModelInfo(grpc::ServerContext*, const v1::GetModelInfoRequest*,
                            v1::ModelInfo* info) override {
    info->set_model("fake");
    info->mutable_limits()->set_max_items_per_request(16);
    info->mutable_limits()->set_max_message_bytes(1 << 20);
    return grpc::Status::OK;
  }

  grpc::Status Embed(grpc::ServerContext* context, const v1::EmbedRequest* request,
                     v1::EmbedResponse* response) override {
    {
      absl::MutexLock lock(&mutex_);
      for (const auto& [key, value] : context->client_metadata()) {
        metadata_[std::string(key.data(), key.size())] = std::string(value.data(), value.size());
      }
    }
    Answer(*context, request->inputs(), response->mutable_results());
    return context->IsCancelled() ? grpc::Status::CANCELLED : grpc::Status::OK;
  }

  grpc::Status EmbedStream(grpc::ServerContext* context, Stream* stream) override {
    stream->Write({});
    v1::EmbedStreamRequest request;
    while (stream->Read(&request)) {
      v1::EmbedStreamResponse response;
      Answer(*context, request.inputs(), response.mutable_results());
      stream->Write(response);
    }
    return context->IsCancelled() ? grpc::Status::CANCELLED : grpc::Status::OK;
  }

  void AwaitItems(int count) {
    absl::MutexLock lock(&mutex_);
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return items_ >= count; };
    mutex_.Await(absl::Condition(&there));
  }
  std::map<std::string, std::string> metadata() {
    absl::MutexLock lock(&mutex_);
    return metadata_;
  }

 private:
  template <typename Inputs, typename Results>
  void Answer(const grpc::ServerContext& context, const Inputs& inputs, Results* results) {
    for (const v1::Input& input : inputs) {
      if (context.IsCancelled()) return;
      absl::SleepFor(absl::Microseconds(500));
      v1::EmbedResult& result = *results->Add();
      result.set_id(input.id());
      const float value = static_cast<float>(input.text().size());
      result.mutable_embedding()->mutable_data()->assign(reinterpret_cast<const char*>(&value), 4);
      result.mutable_embedding()->set_type(v1::OUTPUT_TYPE_FLOAT32);
      result.mutable_embedding()->set_dimensions(1);
      absl::MutexLock lock(&mutex_);
      ++items_;
    }
  }

  absl::Mutex mutex_;
  int items_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, std::string> metadata_ ABSL_GUARDED_BY(mutex_);
};

class ClientGrpcTest : public ::testing::Test {
 protected:
  ClientGrpcTest() {
    for (size_t i = 0; i < 2; ++i) {
      int port = 0;
      grpc::ServerBuilder builder;
      builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
      builder.RegisterService(&services_[i]);
      servers_[i] = builder.BuildAndStart();
      options_.servers.push_back(absl::StrCat("127.0.0.1:", port));
    }
  }

  void Connect() {
    auto client = Client::Create(options_);
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }
  // In haste: what is under way is cut off.
  void Kill(size_t i) { servers_[i]->Shutdown(std::chrono::system_clock::now()); }

  Service services_[2];
  std::unique_ptr<grpc::Server> servers_[2];
  ClientOptions options_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientGrpcTest, OfTwoServersAKilledOneLosesNoInputOfACall) {
  Connect();
  std::thread killer([&] {
    services_[0].AwaitItems(20);
    Kill(0);
  });
  auto reply = client_->Embed(std::vector<Input>(500, "four"));
  killer.join();
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(reply->results.size(), 500u);
  for (const auto& result : reply->results) {
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_THAT(result->Floats(), ElementsAre(4.f));
  }
}

TEST_F(ClientGrpcTest, OfTwoServersAKilledOneLosesNoInputOfAStream) {
  Connect();
  auto stream = client_->OpenStream();
  ASSERT_TRUE(stream.ok()) << stream.status();
  std::thread writer([&] {
    for (uint64_t i = 0; i < 1000; ++i) {
      if (i == 500) {
        services_[0].AwaitItems(20);
        services_[1].AwaitItems(20);
        Kill(0);
      }
      EXPECT_TRUE((*stream)->Write("x", i));
    }
    (*stream)->WritesDone();
  });
  std::map<uint64_t, int> seen;
  StreamResult result;
  while ((*stream)->Read(&result)) {
    EXPECT_TRUE(result.embedding.ok()) << result.embedding.status();
    ++seen[result.key];
  }
  writer.join();
  EXPECT_TRUE((*stream)->Finish().ok()) << (*stream)->Finish();
  EXPECT_EQ(seen.size(), 1000u);
  for (const auto& [key, times] : seen) EXPECT_EQ(times, 1) << key;
}

TEST_F(ClientGrpcTest, KeyAndTenantGoWithEachCall) {
  options_.servers.resize(1);
  options_.connection.api_key = "secret";
  options_.connection.tenant = "search";
  Connect();
  ASSERT_TRUE(client_->Embed({"x"}).ok());
  EXPECT_EQ(services_[0].metadata()["authorization"], "Bearer secret");
  EXPECT_EQ(services_[0].metadata()["quiver-tenant"], "search");
}

TEST_F(ClientGrpcTest, TheDeadlineEndsWhatIsNotAnswered) {
  options_.servers.resize(1);
  Connect();
  ASSERT_TRUE(client_->GetModelInfo().ok());
  auto reply =
      client_->Embed(std::vector<Input>(10'000, "x"), {}, {.timeout = absl::Milliseconds(50)});
  // What was answered in time is there.
  const absl::Status status = reply.ok() ? reply->results.back().status() : reply.status();
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

TEST_F(ClientGrpcTest, AServerThatIsNotThereIsNamed) {
  Kill(0);
  options_.servers.resize(1);
  options_.retry.max_tries = 2;
  Connect();
  const absl::Status status = client_->Embed({"x"}).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(options_.servers[0]));
  EXPECT_TRUE(absl::IsUnavailable(client_->OpenStream().status()));
}

TEST_F(ClientGrpcTest, DestructionInTheMiddleEndsCallsAndChannels) {
  for (int i = 0; i < 20; ++i) {
    Connect();
    std::atomic<int> ended{0};
    for (int call = 0; call < 10; ++call) {
      client_->EmbedAsync(std::vector<Input>(100, "x"), {}, {},
                          [&](const absl::StatusOr<EmbedReply>&) { ++ended; });
    }
    auto stream = client_->OpenStream();
    ASSERT_TRUE(stream.ok()) << stream.status();
    for (uint64_t key = 0; key < 100; ++key) (*stream)->Write("x", key);
    stream->reset();
    client_.reset();
    EXPECT_EQ(ended, 10);
  }
}

}  // namespace
}  // namespace quiver::client
