// The client against servers that behave and servers that do not.
#include "tools/quiver/remote_executor.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "server/grpc_status.h"
#include "tools/quiver/rpc_status.h"

namespace quiver {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Stream = grpc::ServerReaderWriter<v1::EmbedStreamResponse, v1::EmbedStreamRequest>;

// A server of vectors of one element, the length of the text. Hooks change what it does.
class FakeService : public v1::EmbedService::Service {
 public:
  grpc::Status GetModelInfo(grpc::ServerContext*, const v1::GetModelInfoRequest*,
                            v1::ModelInfo* info) override {
    info->mutable_dimensions()->set_default_value(1);
    info->mutable_limits()->set_max_items_per_request(3);
    info->mutable_limits()->set_max_message_bytes(64 * 1024 + 100);
    return grpc::Status::OK;
  }

  grpc::Status EmbedStream(grpc::ServerContext*, Stream* stream) override {
    v1::EmbedStreamRequest request;
    if (!stream->Read(&request) || !request.has_start()) {
      return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no start");
    }
    options = request.start().options();
    if (!accept.ok()) return ToGrpcStatus(accept, "start.options.");
    stream->Write({});
    while (stream->Read(&request)) {
      ++messages;
      largest_message = std::max(largest_message, request.inputs_size());
      const grpc::Status status = answer(request, stream);
      if (!status.ok()) return status;
      if (end_early) return grpc::Status::OK;
    }
    return grpc::Status::OK;
  }

  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override {
    ++messages;
    for (const v1::Input& input : request->inputs()) {
      response->add_results()->mutable_token_ids()->add_ids(
          static_cast<uint32_t>(input.text().size()));
    }
    return grpc::Status::OK;
  }

  static void Add(const v1::Input& input, v1::EmbedStreamResponse* response) {
    v1::EmbedResult& result = *response->add_results();
    result.set_id(input.id());
    const float value = static_cast<float>(input.text().size());
    result.mutable_embedding()->mutable_data()->assign(reinterpret_cast<const char*>(&value), 4);
    result.mutable_embedding()->set_type(v1::OUTPUT_TYPE_FLOAT32);
    result.mutable_embedding()->set_dimensions(1);
    result.mutable_embedding()->set_token_count(static_cast<uint32_t>(input.text().size()));
  }

  // Backwards, as if the last were the fastest.
  static grpc::Status AnswerAll(const v1::EmbedStreamRequest& request, Stream* stream) {
    v1::EmbedStreamResponse response;
    for (int i = request.inputs_size(); i-- > 0;) Add(request.inputs(i), &response);
    stream->Write(response);
    return grpc::Status::OK;
  }

  absl::Status accept;
  std::function<grpc::Status(const v1::EmbedStreamRequest&, Stream*)> answer = AnswerAll;
  bool end_early = false;
  v1::EmbedOptions options;
  int messages = 0;
  int largest_message = 0;
};

// Token counts, ids or error messages, in order.
template <typename Result>
class RecordingSink : public ResultSink<Result> {
 public:
  absl::Status Begin(int dimensions) override {
    begun = dimensions;
    return absl::OkStatus();
  }
  absl::Status Put(const InputItem& item, const absl::StatusOr<Result>& result) override {
    EXPECT_EQ(item.index, seen.size());
    seen.push_back(result.ok() ? Show(*result) : std::string(result.status().message()));
    return seen.size() == fail_at ? absl::DataLossError("full") : absl::OkStatus();
  }
  absl::Status Flush() override { return absl::OkStatus(); }

  static std::string Show(const Embedding& embedding) {
    return absl::StrCat(embedding.token_count);
  }
  static std::string Show(const TokenizedInput& input) { return absl::StrCat(input.ids[0]); }

  int begun = -1;
  std::vector<std::string> seen;
  size_t fail_at = 0;
};

class RemoteExecutorTest : public ::testing::Test {
 protected:
  RemoteExecutorTest() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    executor_ = std::make_unique<RemoteExecutor>(RemoteExecutor::Options{
        .server = absl::StrCat("127.0.0.1:", port), .wait = absl::ZeroDuration()});
  }

  absl::Status Embed(std::vector<std::string> texts, const WorkOptions& options = {}) {
    return executor_->Embed(options, SourceOfTexts(std::move(texts)).get(), &sink_);
  }

  FakeService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<RemoteExecutor> executor_;
  RecordingSink<Embedding> sink_;
};

TEST_F(RemoteExecutorTest, ResultsComeInOrderAroundInputsThatCannotBeSent) {
  ASSERT_TRUE(Embed({"a", "\xFF", "ccc", std::string(101, 'x'), "dddd", "eeeee", "ffffff"}).ok());
  EXPECT_THAT(sink_.seen, ElementsAre("1", "invalid UTF-8 at byte 0", "3",
                                      HasSubstr("must be at most 100 bytes"), "4", "5", "6"));
  EXPECT_EQ(sink_.begun, 1);
  EXPECT_EQ(service_.largest_message, 3);
}

TEST_F(RemoteExecutorTest, OptionsTravelAndWhatIsNotGivenStaysUnset) {
  ASSERT_TRUE(Embed({"a"}).ok());
  EXPECT_FALSE(service_.options.has_normalize() || service_.options.has_dimensions());
  EXPECT_EQ(service_.options.prompt_case(), v1::EmbedOptions::PROMPT_NOT_SET);
  EXPECT_EQ(service_.options.truncation(), v1::TRUNCATION_UNSPECIFIED);
  EXPECT_EQ(service_.options.lane(), v1::LANE_BULK);

  WorkOptions options;
  options.request = {.prompt_name = "",
                     .instruction = std::nullopt,
                     .dimensions = 9,
                     .normalize = false,
                     .truncation = Truncation::kLeft,
                     .output_type = OutputType::kInt8};
  options.lane = Lane::kInteractive;
  ASSERT_TRUE(Embed({}, options).ok());
  EXPECT_TRUE(service_.options.has_prompt_name());
  EXPECT_EQ(service_.options.dimensions(), 9u);
  EXPECT_FALSE(service_.options.normalize());
  EXPECT_EQ(service_.options.truncation(), v1::TRUNCATION_LEFT);
  EXPECT_EQ(service_.options.output_type(), v1::OUTPUT_TYPE_INT8);
  EXPECT_EQ(service_.options.lane(), v1::LANE_INTERACTIVE);
  EXPECT_EQ(sink_.begun, 9);
}

TEST_F(RemoteExecutorTest, ARefusedOptionIsTheRunsErrorWithItsField) {
  service_.accept = FieldError("dimensions", "must be 1; it is 9");
  const absl::Status status = Embed({"a"});
  EXPECT_EQ(ErrorField(status), "dimensions");
  EXPECT_EQ(status.message(), "must be 1; it is 9");
  EXPECT_EQ(sink_.begun, -1);
}

TEST_F(RemoteExecutorTest, AServerThatBreaksOffFailsWhatIsPendingAndTheRun) {
  service_.answer = [](const v1::EmbedStreamRequest&, Stream*) {
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "draining");
  };
  const absl::Status status = Embed({"a", "b"});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("127.0.0.1:"));
  EXPECT_THAT(sink_.seen, ElementsAre(HasSubstr("draining"), HasSubstr("draining")));
}

TEST_F(RemoteExecutorTest, AResultThatNeverComesIsAnErrorOfItsItem) {
  service_.answer = [](const v1::EmbedStreamRequest& request, Stream* stream) {
    v1::EmbedStreamResponse response;
    FakeService::Add(request.inputs(1), &response);
    stream->Write(response);
    return grpc::Status::OK;
  };
  EXPECT_TRUE(Embed({"a", "bb"}).ok());
  EXPECT_THAT(sink_.seen, ElementsAre(HasSubstr("no result"), "2"));
}

TEST_F(RemoteExecutorTest, AVectorOfTheWrongSizeIsAnErrorOfItsItem) {
  service_.answer = [](const v1::EmbedStreamRequest& request, Stream* stream) {
    v1::EmbedStreamResponse response;
    FakeService::Add(request.inputs(0), &response);
    response.mutable_results(0)->mutable_embedding()->set_dimensions(2);
    stream->Write(response);
    return grpc::Status::OK;
  };
  EXPECT_TRUE(Embed({"a"}).ok());
  EXPECT_THAT(sink_.seen, ElementsAre("the server sent 4 bytes for a vector of 2 dimensions"));
}

TEST_F(RemoteExecutorTest, ASinksErrorEndsTheRun) {
  sink_.fail_at = 1;
  EXPECT_EQ(Embed({"a", "b", "c", "d", "e"}), absl::DataLossError("full"));
}

TEST_F(RemoteExecutorTest, TokensComeInOrderAroundInputsThatCannotBeSent) {
  RecordingSink<TokenizedInput> sink;
  ASSERT_TRUE(
      executor_->Tokenize({}, SourceOfTexts({"a", "\xFF", "ccc", "dddd", "eeeee"}).get(), &sink)
          .ok());
  EXPECT_THAT(sink.seen, ElementsAre("1", "invalid UTF-8 at byte 0", "3", "4", "5"));
}

TEST_F(RemoteExecutorTest, AServerThatIsNotThereIsNamed) {
  server_->Shutdown();
  const absl::Status status = Embed({"a"});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("127.0.0.1:"));
}

TEST(RpcStatusTest, UndoesTheServersTranslation) {
  const absl::Status field = FieldError("text", "must not be empty");
  EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(field, "inputs[3].")), field);
  EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(field)), field);
  EXPECT_EQ(FromGrpcStatus(grpc::Status(grpc::StatusCode::NOT_FOUND, "no")),
            absl::NotFoundError("no"));
}

}  // namespace
}  // namespace quiver
