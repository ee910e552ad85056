#include "tests/server/service_fixture.h"

#include <utility>

#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "tests/testing/fake_tokenizer.h"

namespace quiver {
namespace {

google::rpc::Status Details(const grpc::Status& status) {
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  return details;
}

template <typename Message>
Message Detail(const google::rpc::Status& status) {
  Message message;
  for (const auto& any : status.details()) {
    if (any.Is<Message>()) any.UnpackTo(&message);
  }
  return message;
}

}  // namespace

void ServiceTest::Start(Setup setup) {
  if (setup.backend.on_begin == nullptr) {
    setup.backend.on_begin = [this](const PackedBatch&) {
      gate_.Pass();
      return absl::OkStatus();
    };
  }
  embedder_ = MakeFakeEmbedder(setup.embedder, setup.backend, nullptr, &backend_);
  model_ = std::make_unique<ServedModel>(&state_, std::vector<std::string>{"an-alias"});
  calls_ = std::make_unique<EmbedCalls>(setup.calls);
  service_ = std::make_unique<EmbedService>(setup.service, model_.get(), calls_.get(), &observer_);
  auto server = GrpcServer::Create({.port = 0}, service_.get(), "quiver.v1.EmbedService");
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  if (setup.serve) state_.Serve(embedder_.get());
  channel_ = NewChannel();
  stub_ = v1::EmbedService::NewStub(channel_);
}

ServiceTest::~ServiceTest() {
  gate_.Open();
  if (server_ == nullptr) return;
  state_.Drain();
  embedder_->Drain(absl::Now() + absl::Seconds(10));
  server_->Shutdown(absl::ZeroDuration());
}

std::shared_ptr<grpc::Channel> ServiceTest::NewChannel() const {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  // Otherwise channels to one address share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(),
                                   arguments);
}

void ServiceTest::AwaitServerCaughtUp() {
  for (int i = 0; i < 3; ++i) {
    grpc::ClientContext context;
    v1::ModelInfo info;
    EXPECT_TRUE(stub_->GetModelInfo(&context, {}, &info).ok());
  }
}

v1::EmbedRequest ServiceTest::Request(const std::vector<std::string>& texts) {
  v1::EmbedRequest request;
  for (const std::string& text : texts) request.add_inputs()->set_text(text);
  return request;
}

std::string ViolatedField(const google::rpc::Status& status) {
  const auto details = Detail<google::rpc::BadRequest>(status);
  return details.field_violations().empty() ? "" : details.field_violations(0).field();
}

std::string ViolatedField(const grpc::Status& status) { return ViolatedField(Details(status)); }

absl::Duration RetryAfter(const grpc::Status& status) {
  const auto delay = Detail<google::rpc::RetryInfo>(Details(status)).retry_delay();
  return absl::Seconds(delay.seconds()) + absl::Nanoseconds(delay.nanos());
}

void ExpectVector(const v1::EmbedResult& result, const std::string& text) {
  ASSERT_TRUE(result.has_embedding()) << result.error().message();
  EXPECT_EQ(result.embedding().data(), VectorOf(text));
}

std::string VectorOf(const std::string& text, const OutputSpec& output) {
  std::vector<TokenId> ids = {FakeTokenizer::kFirst};
  for (char c : text) ids.push_back(FakeTokenizer::kBytes + static_cast<unsigned char>(c));
  ids.push_back(FakeTokenizer::kLast);
  return FakeVector(ids, output).data;
}

}  // namespace quiver
