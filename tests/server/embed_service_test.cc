#include "server/embed_service.h"

#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "server/tenant.h"
#include "tests/server/service_fixture.h"

namespace quiver {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kBadUtf8[] = "ab\xff";

using EmbedServiceTest = ServiceTest;

void ExpectError(const google::rpc::Status& status, const std::string& field,
                 const std::vector<std::string>& parts) {
  EXPECT_EQ(status.code(), grpc::StatusCode::INVALID_ARGUMENT) << status.message();
  EXPECT_EQ(ViolatedField(status), field);
  for (const std::string& part : parts) EXPECT_THAT(status.message(), HasSubstr(part));
}

void ExpectError(const grpc::Status& status, const std::string& field,
                 const std::vector<std::string>& parts) {
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
  EXPECT_EQ(ViolatedField(status), field);
  for (const std::string& part : parts) EXPECT_THAT(status.error_message(), HasSubstr(part));
}

TEST_F(EmbedServiceTest, EachInputGetsItsVectorInOrder) {
  Start();
  v1::EmbedRequest request = Request({"one", "two"});
  request.mutable_inputs(1)->set_id("b");
  v1::TokenIds& ids = *request.add_inputs()->mutable_token_ids();
  for (uint32_t id : {1, 3 + 'x', 2}) ids.add_ids(id);
  v1::EmbedResponse response;
  const grpc::Status status = Embed(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results_size(), 3);
  ExpectVector(response.results(0), "one");
  ExpectVector(response.results(1), "two");
  ExpectVector(response.results(2), "x");
  EXPECT_EQ(response.results(0).id(), "");
  EXPECT_EQ(response.results(1).id(), "b");
  for (uint64_t i = 0; i < 3; ++i) EXPECT_EQ(response.results(static_cast<int>(i)).index(), i);
  const v1::Embedding& first = response.results(0).embedding();
  EXPECT_EQ(first.type(), v1::OUTPUT_TYPE_FLOAT32);
  EXPECT_EQ(first.dimensions(), 32u);
  EXPECT_EQ(first.token_count(), 5u);
  EXPECT_FALSE(first.truncated());
  EXPECT_EQ(response.usage().total_tokens(), 13u);
  EXPECT_EQ(response.usage().succeeded(), 3u);
  EXPECT_EQ(response.usage().failed(), 0u);
  EXPECT_EQ(response.model(), "fake-model");
  EXPECT_EQ(response.vector_space().fingerprint(), embedder_->info().space_fingerprint);
  EXPECT_EQ(response.vector_space().prompt_fingerprint(), "");
  EXPECT_GT(response.timing().total().nanos(), 0);
}

TEST_F(EmbedServiceTest, OptionsShapeTheVector) {
  Start();
  v1::EmbedRequest request = Request({"t"});
  request.mutable_options()->set_prompt_name("query");
  request.mutable_options()->set_dimensions(16);
  request.mutable_options()->set_normalize(false);
  request.mutable_options()->set_output_type(v1::OUTPUT_TYPE_INT8);
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(request, &response).ok());
  const v1::Embedding& vector = response.results(0).embedding();
  EXPECT_EQ(vector.data(), VectorOf("query: t", {16, false, OutputType::kInt8}));
  EXPECT_EQ(vector.type(), v1::OUTPUT_TYPE_INT8);
  EXPECT_EQ(vector.dimensions(), 16u);
  EXPECT_GT(vector.scale(), 0);
  EXPECT_NE(response.vector_space().prompt_fingerprint(), "");
  EXPECT_NE(response.vector_space().fingerprint(), embedder_->info().space_fingerprint);

  for (const auto& [wire, type] : std::vector<std::pair<v1::OutputType, OutputType>>{
           {v1::OUTPUT_TYPE_FLOAT32, OutputType::kFloat32},
           {v1::OUTPUT_TYPE_FLOAT16, OutputType::kFloat16},
           {v1::OUTPUT_TYPE_BFLOAT16, OutputType::kBfloat16},
           {v1::OUTPUT_TYPE_BINARY, OutputType::kBinary}}) {
    request = Request({"t"});
    request.mutable_options()->set_output_type(wire);
    ASSERT_TRUE(Embed(request, &response).ok());
    EXPECT_EQ(response.results(0).embedding().type(), wire);
    EXPECT_EQ(response.results(0).embedding().data(), VectorOf("t", {32, true, type}));
  }
}

TEST_F(EmbedServiceTest, TruncationIsDoneWhenAskedFor) {
  Start();
  const std::string text(600, 'a');
  v1::EmbedRequest request = Request({text + "b"});
  v1::EmbedResponse response;
  request.mutable_options()->set_truncation(v1::TRUNCATION_RIGHT);
  ASSERT_TRUE(Embed(request, &response).ok());
  ExpectVector(response.results(0), std::string(510, 'a'));
  EXPECT_TRUE(response.results(0).embedding().truncated());
  EXPECT_EQ(response.usage().truncated(), 1u);
  request.mutable_options()->set_truncation(v1::TRUNCATION_LEFT);
  ASSERT_TRUE(Embed(request, &response).ok());
  ExpectVector(response.results(0), std::string(509, 'a') + "b");
  request.mutable_options()->set_truncation(v1::TRUNCATION_NONE);
  ASSERT_TRUE(Embed(request, &response).ok());
  ExpectError(response.results(0).error(), "inputs[0].text", {"512", "603"});
}

TEST_F(EmbedServiceTest, ABadInputFailsAloneWithItsReason) {
  Start();
  v1::EmbedRequest request;
  const auto add = [&request]() -> v1::Input& {
    request.add_inputs()->set_text("good");
    return *request.add_inputs();
  };
  add().set_text("");
  add().set_text(std::string(511, 'x'));
  add().set_text(std::string(10 << 20, 'x'));
  add().mutable_token_ids()->add_ids(259);
  add().mutable_token_ids()->add_ids(4'000'000'000u);
  add().mutable_token_ids();
  add().set_id("no content");
  v1::Input& long_id = add();
  long_id.set_id(std::string(1025, 'i'));
  long_id.set_text("text");
  add().set_text(std::string(510, 'x'));

  v1::EmbedResponse response;
  const grpc::Status status = Embed(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results_size(), request.inputs_size());
  for (int i = 0; i < response.results_size(); i += 2) ExpectVector(response.results(i), "good");
  const auto error = [&response](int i) { return response.results(i).error(); };
  ExpectError(error(1), "inputs[1].text", {"inputs[1].text", "empty"});
  ExpectError(error(3), "inputs[3].text", {"512", "513"});
  ExpectError(error(5), "inputs[5].text", {"65536", "10485760"});
  ExpectError(error(7), "inputs[7].token_ids", {"258", "index 0 is 259"});
  ExpectError(error(9), "inputs[9].token_ids", {"from 0 to 258;", "index 0 is 4000000000"});
  ExpectError(error(11), "inputs[11].token_ids", {"empty"});
  ExpectError(error(13), "inputs[13].content", {"unset"});
  EXPECT_EQ(response.results(13).id(), "no content");
  ExpectError(error(15), "inputs[15].id", {"1024", "1025"});
  EXPECT_EQ(response.results(15).id(), "");
  EXPECT_EQ(response.results(17).embedding().token_count(), 512u);
  EXPECT_EQ(response.usage().failed(), 8u);
  EXPECT_EQ(response.usage().succeeded(), 10u);
}

TEST_F(EmbedServiceTest, TextThatIsNotUtf8FailsAlone) {
  Start();
  v1::EmbedRequest request = Request({"good", kBadUtf8, "good"});
  request.add_inputs()->set_text("id");
  request.mutable_inputs(3)->set_id(kBadUtf8);
  request.mutable_inputs(2)->set_id("c");
  request.mutable_options()->set_dimensions(8);
  v1::EmbedResponse response;
  const grpc::Status status = Embed(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results_size(), 4);
  EXPECT_EQ(response.results(0).embedding().data(), VectorOf("good", {.dimensions = 8}));
  EXPECT_EQ(response.results(2).embedding().data(), VectorOf("good", {.dimensions = 8}));
  EXPECT_EQ(response.results(2).id(), "c");
  ExpectError(response.results(1).error(), "inputs[1].text", {"UTF-8", "byte 2"});
  ExpectError(response.results(3).error(), "inputs[3].id", {"UTF-8", "byte 2"});
  EXPECT_EQ(response.results(3).id(), "");

  request.mutable_options()->set_instruction(kBadUtf8);
  ExpectError(Embed(request, &response), "options.instruction", {"UTF-8", "byte 2"});
  request.mutable_options()->clear_instruction();
  request.set_model(kBadUtf8);
  ExpectError(Embed(request, &response), "model", {"UTF-8", "byte 2"});
}

TEST_F(EmbedServiceTest, BytesThatAreNoMessageAreRefused) {
  Start();
  grpc::GenericStub stub(channel_);
  grpc::Slice slice("\x0a\xffgarbage");
  grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  grpc::ClientContext context;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, "/quiver.v1.EmbedService/Embed", {}, &request, &response,
                 [&done](grpc::Status status) { done.set_value(std::move(status)); });
  const grpc::Status status = done.get_future().get();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("quiver.v1.EmbedRequest"));
}

TEST_F(EmbedServiceTest, WrongOptionsFailTheRequestByName) {
  Start({.service = {.max_items_per_request = 3, .server_version = ""}});
  v1::EmbedResponse response;
  const auto options = [](auto change) {
    v1::EmbedRequest request = Request({"t"});
    change(request.mutable_options());
    return request;
  };
  using O = v1::EmbedOptions;
  ExpectError(Embed(options([](O* o) { o->set_dimensions(0); }), &response), "options.dimensions",
              {"8", "32", "is 0"});
  ExpectError(Embed(options([](O* o) { o->set_dimensions(33); }), &response), "options.dimensions",
              {"8", "32", "is 33"});
  ExpectError(Embed(options([](O* o) { o->set_prompt_name("nope"); }), &response),
              "options.prompt_name", {"nope", "query"});
  ExpectError(Embed(options([](O* o) { o->set_instruction(""); }), &response),
              "options.instruction", {"empty"});
  ExpectError(
      Embed(options([](O* o) { o->set_output_type(static_cast<v1::OutputType>(9)); }), &response),
      "options.output_type", {"5", "is 9"});
  ExpectError(
      Embed(options([](O* o) { o->set_truncation(static_cast<v1::Truncation>(-1)); }), &response),
      "options.truncation", {"3", "is -1"});
  ExpectError(Embed(options([](O* o) { o->set_lane(static_cast<v1::Lane>(3)); }), &response),
              "options.lane", {"2", "is 3"});
  ExpectError(Embed(Request({}), &response), "inputs", {"at least 1"});
  ExpectError(Embed(Request({"a", "b", "c", "d"}), &response), "inputs", {"3", "4"});

  v1::EmbedRequest other = Request({"t"});
  other.set_model("gpt");
  const grpc::Status status = Embed(other, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), AllOf(HasSubstr("gpt"), HasSubstr("fake-model")));
  for (const char* name : {"", "fake-model", "an-alias"}) {
    other.set_model(name);
    EXPECT_TRUE(Embed(other, &response).ok()) << name;
  }
}

TEST_F(EmbedServiceTest, ALongTenantIsRefused) {
  Start();
  for (const size_t length : {kMaxTenantBytes, kMaxTenantBytes + 1}) {
    grpc::ClientContext context;
    context.AddMetadata(kTenantKey, std::string(length, 't'));
    v1::EmbedResponse response;
    const grpc::Status status = stub_->Embed(&context, Request({"t"}), &response);
    EXPECT_EQ(status.ok(), length == kMaxTenantBytes);
    if (!status.ok()) ExpectError(status, "metadata quiver-tenant", {"128", "129"});
  }
}

TEST_F(EmbedServiceTest, ALargeMixedRequestIsAnsweredWhole) {
  Start();
  std::vector<std::string> texts;
  for (int i = 0; i < 10'000; ++i) {
    texts.push_back(i % 3 == 0   ? std::to_string(i)
                    : i % 3 == 1 ? std::string(510, 'a' + i % 26)
                                 : std::string(511, 'b'));
  }
  v1::EmbedResponse response;
  const grpc::Status status = Embed(Request(texts), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results_size(), 10'000);
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_EQ(response.results(i).index(), static_cast<uint64_t>(i));
    if (i % 3 < 2) {
      ASSERT_EQ(response.results(i).embedding().data(), VectorOf(texts[static_cast<size_t>(i)]));
    } else {
      ASSERT_EQ(response.results(i).error().code(), grpc::StatusCode::INVALID_ARGUMENT);
    }
  }
  texts.push_back("one too many");
  ExpectError(Embed(Request(texts), &response), "inputs", {"10000", "10001"});
}

TEST_F(EmbedServiceTest, ConcurrentClientsGetTheirOwnVectors) {
  Start();
  std::vector<std::thread> clients;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([this, c] {
      auto stub = v1::EmbedService::NewStub(NewChannel());
      for (int i = 0; i < 50; ++i) {
        const std::string text = absl::StrCat(c, " ", i, std::string(i % 5 == 0 ? 400 : 0, 'x'));
        const std::vector<std::string> texts(i % 10 == 0 ? 60 : 2, text);
        grpc::ClientContext context;
        v1::EmbedResponse response;
        const grpc::Status status = stub->Embed(&context, Request(texts), &response);
        ASSERT_TRUE(status.ok()) << status.error_message();
        ASSERT_EQ(response.results_size(), static_cast<int>(texts.size()));
        for (const v1::EmbedResult& result : response.results()) ExpectVector(result, text);
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(EmbedServiceTest, AnEngineErrorIsThatItemsAlone) {
  Start({.backend = {.on_sequence = [](absl::Span<const TokenId> ids) {
           return ids.size() == 3 ? absl::InternalError("not finite") : absl::OkStatus();
         }}});
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(Request({"long", "s", "long"}), &response).ok());
  ExpectVector(response.results(0), "long");
  EXPECT_EQ(response.results(1).error().code(), grpc::StatusCode::INTERNAL);
  ExpectVector(response.results(2), "long");
}

TEST_F(EmbedServiceTest, EveryRequestIsReportedOnce) {
  Start();
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(Request({"abc", "", "d"}), &response).ok());
  ASSERT_FALSE(Embed(Request({}), &response).ok());
  const std::vector<RequestReport> reports = observer_.Reports(Rpc::kEmbed, 2);
  EXPECT_EQ(observer_.starts(), 2);
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(reports[0].rpc, Rpc::kEmbed);
  EXPECT_EQ(reports[0].code, absl::StatusCode::kOk);
  EXPECT_EQ(reports[0].succeeded, 2);
  EXPECT_EQ(reports[0].failed, 1);
  EXPECT_EQ(reports[0].tokens, 8);
  EXPECT_GT(reports[0].total, absl::ZeroDuration());
  EXPECT_THAT(reports[0].peer, HasSubstr("127.0.0.1"));
  EXPECT_EQ(reports[1].code, absl::StatusCode::kInvalidArgument);
}

TEST_F(EmbedServiceTest, TokenizeGivesTheIdsThatEmbedRuns) {
  Start();
  v1::TokenizeRequest request;
  request.add_inputs()->set_text("ab");
  request.add_inputs()->set_text("");
  request.add_inputs()->mutable_token_ids()->add_ids(7);
  request.add_inputs()->set_text(std::string(600, 'z'));
  request.mutable_inputs(0)->set_id("first");
  request.mutable_options()->set_prompt_name("query");
  request.mutable_options()->set_truncation(v1::TRUNCATION_RIGHT);
  // Ignored.
  request.mutable_options()->set_dimensions(0);
  grpc::ClientContext context;
  v1::TokenizeResponse response;
  const grpc::Status status = stub_->Tokenize(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results_size(), 4);
  std::vector<uint32_t> expected = {1};
  for (char c : std::string("query: ab")) expected.push_back(3 + static_cast<unsigned char>(c));
  expected.push_back(2);
  EXPECT_THAT(response.results(0).token_ids().ids(), ::testing::ElementsAreArray(expected));
  EXPECT_EQ(response.results(0).id(), "first");
  ExpectError(response.results(1).error(), "inputs[1].text", {"empty"});
  EXPECT_THAT(response.results(2).token_ids().ids(), ::testing::ElementsAre(7));
  EXPECT_EQ(response.results(3).token_ids().ids_size(), 512);
  EXPECT_TRUE(response.results(3).truncated());
}

TEST_F(EmbedServiceTest, ModelInfoIsAnsweredWhileTheEngineIsBusy) {
  Start({.backend = {.memory = {{"weights", 70}, {"context", 30}}}});
  gate_.Close();
  std::thread busy([this] {
    v1::EmbedResponse response;
    EXPECT_TRUE(Embed(Request({"t"}), &response).ok());
  });
  gate_.AwaitWaiter();
  grpc::ClientContext context;
  v1::ModelInfo info;
  ASSERT_TRUE(stub_->GetModelInfo(&context, {}, &info).ok());
  gate_.Open();
  busy.join();
  EXPECT_EQ(info.model(), "fake-model");
  EXPECT_THAT(info.aliases(), ::testing::ElementsAre("an-alias"));
  EXPECT_EQ(info.architecture(), "qwen3");
  EXPECT_EQ(info.hidden_size(), 32u);
  EXPECT_EQ(info.vocabulary_size(), 259u);
  EXPECT_EQ(info.dimensions().default_value(), 32u);
  EXPECT_EQ(info.dimensions().min_value(), 8u);
  EXPECT_EQ(info.dimensions().max_value(), 32u);
  ASSERT_EQ(info.prompts_size(), 2);
  EXPECT_EQ(info.prompts(0).text(), "query: ");
  EXPECT_TRUE(info.accepts_instruction());
  EXPECT_EQ(info.limits().max_input_tokens(), 512u);
  EXPECT_EQ(info.limits().max_items_per_request(), 10'000u);
  EXPECT_EQ(info.limits().max_message_bytes(), 32u << 20);
  EXPECT_EQ(info.limits().max_text_bytes(), 65536u);
  EXPECT_EQ(info.vector_space().fingerprint(), embedder_->info().space_fingerprint);
  EXPECT_EQ(info.server_version(), "1.2.3");
  EXPECT_EQ(info.default_truncation(), v1::TRUNCATION_NONE);
  ASSERT_EQ(info.device_memory_size(), 2);
  EXPECT_EQ(info.device_memory(0).purpose(), "weights");
  EXPECT_EQ(info.device_memory(0).bytes(), 70u);
  EXPECT_EQ(info.device_memory_budget_bytes(), 0u);
}

}  // namespace
}  // namespace quiver
