#include "server/openai_routes.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/openai_reply.h"
#include "tests/server/http_routes_fixture.h"

namespace quiver {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

using OpenAiRoutesTest = HttpRoutesTest;

// The bytes of an answer's vectors, which came as numbers or as base64.
std::vector<std::string> Vectors(const RawHttpClient::Response& response) {
  EXPECT_EQ(response.status, 200) << response.body;
  std::vector<std::string> vectors;
  const json reply = json::parse(response.body);
  for (const json& item : reply.at("data")) {
    EXPECT_EQ(item.at("index"), vectors.size());
    std::string data;
    const json& embedding = item.at("embedding");
    if (embedding.is_string()) {
      EXPECT_TRUE(absl::Base64Unescape(embedding.get<std::string>(), &data));
    } else {
      for (const double value : embedding) {
        const float narrow = static_cast<float>(value);
        data.append(reinterpret_cast<const char*>(&narrow), sizeof(narrow));
      }
    }
    vectors.push_back(std::move(data));
  }
  return vectors;
}

TEST_F(OpenAiRoutesTest, VectorsEqualThoseOfGrpcToTheLastBit) {
  Serve();
  v1::EmbedRequest request = Request({"a", "two words", "\xE4\xBD\xA0\xE5\xA5\xBD"});
  request.mutable_options()->set_dimensions(16);
  request.mutable_options()->set_prompt_name("query");
  v1::EmbedResponse grpc_reply;
  ASSERT_TRUE(Embed(request, &grpc_reply).ok());
  for (const char* format : {"float", "base64"}) {
    const auto response = Ask(absl::StrCat(
        R"({"model":"an-alias","input":["a","two words","\u4f60\u597d"],"dimensions":16,)",
        R"("prompt_name":"query","encoding_format":")", format, "\"}"));
    const std::vector<std::string> vectors = Vectors(response);
    ASSERT_EQ(vectors.size(), 3);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(vectors[static_cast<size_t>(i)], grpc_reply.results(i).embedding().data());
    }
    const json reply = json::parse(response.body);
    EXPECT_EQ(reply["model"], "fake-model");
    EXPECT_EQ(reply["usage"]["prompt_tokens"], grpc_reply.usage().total_tokens());
    EXPECT_EQ(reply["usage"]["total_tokens"], grpc_reply.usage().total_tokens());
    EXPECT_TRUE(
        response.Has(absl::StrCat(kSpaceHeader, ": ", grpc_reply.vector_space().fingerprint())));
    EXPECT_TRUE(response.Has(
        absl::StrCat(kPromptHeader, ": ", grpc_reply.vector_space().prompt_fingerprint())));
  }
}

TEST_F(OpenAiRoutesTest, StringAndArraysOfTextsAndIdsAreInputs) {
  Serve();
  EXPECT_EQ(Vectors(Ask(R"({"input":"a"})")), std::vector<std::string>{VectorOf("a")});
  v1::EmbedRequest request;
  for (const uint32_t id : {3, 4}) request.add_inputs()->mutable_token_ids()->add_ids(id);
  request.mutable_inputs(0)->mutable_token_ids()->add_ids(5);
  v1::EmbedResponse reply;
  ASSERT_TRUE(Embed(request, &reply).ok());
  const std::string first = reply.results(0).embedding().data();
  EXPECT_EQ(Vectors(Ask(R"({"input":[3,5]})")), std::vector<std::string>{first});
  EXPECT_EQ(Vectors(Ask(R"({"input":[[3,5],[4]]})")),
            (std::vector<std::string>{first, reply.results(1).embedding().data()}));
}

TEST_F(OpenAiRoutesTest, EveryFloatComesBackWithItsBits) {
  std::mt19937 random(7);
  std::vector<uint32_t> bits = {0, 0x80000000, 0x3F800000, 0xBF800000, 1, 0x007FFFFF, 0x7F7FFFFF};
  while (bits.size() < 100'000) {
    const auto candidate = static_cast<uint32_t>(random());
    if ((candidate & 0x7F800000) != 0x7F800000) bits.push_back(candidate);
  }
  const absl::string_view data(reinterpret_cast<const char*>(bits.data()), bits.size() * 4);
  std::string text;
  AppendFloats(data, &text);
  const json values = json::parse(text);
  ASSERT_EQ(values.size(), bits.size());
  for (size_t i = 0; i < bits.size(); ++i) {
    ASSERT_TRUE(values[i].is_number_float()) << values[i];
    const float value = static_cast<float>(values[i].get<double>());
    uint32_t got;
    std::memcpy(&got, &value, sizeof(got));
    ASSERT_EQ(got, bits[i]) << values[i];
  }
}

TEST_F(OpenAiRoutesTest, OptionsReachTheEngine) {
  Serve();
  const std::string raw = VectorOf("a", {.dimensions = 32, .normalize = false});
  EXPECT_EQ(Vectors(Ask(R"({"input":"a","normalize":false,"user":"u","priority":null})")),
            std::vector<std::string>{raw});
  const std::string longer(600, 'x');
  for (const char* truncate : {"true", "\"right\"", "\"left\""}) {
    EXPECT_EQ(Ask(absl::StrCat("{\"input\":\"", longer, "\",\"truncate\":", truncate, "}")).status,
              200);
  }
  const auto refused = Ask(absl::StrCat("{\"input\":\"", longer, "\",\"truncate\":false}"));
  EXPECT_EQ(refused.status, 400);
  EXPECT_THAT(ErrorOf(refused)["message"], HasSubstr("512"));
  Vectors(Ask(R"({"input":"a","instruction":"Find it","priority":"bulk"})"));
  EXPECT_EQ(observer_.Reports(Rpc::kEmbed, 6).back().lane, Lane::kBulk);
}

TEST_F(OpenAiRoutesTest, ErrorsNameTheirFieldInOpenAisForm) {
  Serve();
  struct Case {
    const char* body;
    int status;
    json param;
  };
  const Case cases[] = {
      {"", 400, nullptr},
      {"[]", 400, nullptr},
      {"{}", 400, "input"},
      {R"({"input":[]})", 400, "input"},
      {R"({"input":null})", 400, "input"},
      {R"({"input":["a",1]})", 400, "input"},
      {R"({"input":[1,[2]]})", 400, "input"},
      {R"({"input":[[1],"a"]})", 400, "input"},
      {R"({"input":[1.5]})", 400, "input"},
      {R"({"input":[[1],[]]})", 400, "input[1]"},
      {R"({"input":[[1],[-1]]})", 422, "input[1][0]"},
      {R"({"input":[1,1099511627776]})", 422, "input[1]"},
      {R"({"input":["a",""]})", 400, "input[1]"},
      {R"({"input":""})", 400, "input"},
      {R"({"input":[[1],[99999]]})", 422, "input[1]"},
      {R"({"input":[99999]})", 422, "input"},
      {R"({"input":"a","dimensions":7})", 400, "dimensions"},
      {R"({"input":"a","dimensions":"16"})", 400, "dimensions"},
      {R"({"input":"a","dimensions":18446744073709551615})", 400, "dimensions"},
      {R"({"input":"a","encoding_format":"hex"})", 400, "encoding_format"},
      {R"({"input":"a","prompt_name":"no such"})", 400, "prompt_name"},
      {R"({"input":"a","truncate":"middle"})", 400, "truncate"},
      {R"({"input":"a","priority":1})", 400, "priority"},
      {R"({"input":"a","input":"b"})", 400, "input"},
      {R"({"input":"a","model":"other"})", 404, "model"},
  };
  for (const Case& c : cases) {
    const auto response = Ask(c.body);
    EXPECT_EQ(response.status, c.status) << c.body << " " << response.body;
    EXPECT_TRUE(IsRefusal(response)) << c.body << " " << response.body;
    EXPECT_EQ(ErrorOf(response)["param"], c.param) << c.body;
    EXPECT_EQ(ErrorOf(response)["type"], "invalid_request_error");
  }
  EXPECT_EQ(ErrorOf(Ask(R"({"input":"a","model":"other"})"))["code"], "model_not_found");
  EXPECT_THAT(ErrorOf(Ask(R"({"input":[99999]})"))["message"],
              HasSubstr("check_embedding_ctx_length=False"));
}

TEST_F(OpenAiRoutesTest, WhatIsNotJsonOrTooLargeIsRefused) {
  Serve();
  EXPECT_EQ(Ask("input=a", "Content-Type: application/x-www-form-urlencoded\r\n").status, 415);
  EXPECT_EQ(Ask(R"({"input":"a"})", "Content-Encoding: gzip\r\n").status, 415);
  EXPECT_EQ(Ask(R"({"input":"a"})", "Content-Type: application/json; charset=utf-8\r\n").status,
            200);
  EXPECT_EQ(Ask(absl::StrCat("{\"input\":\"", std::string(kMaxBodyBytes, 'x'), "\"}")).status, 413);
  std::string items = "\"a\"";
  for (int i = 0; i < kMaxItems; ++i) items += ",\"a\"";
  EXPECT_THAT(ErrorOf(Ask(absl::StrCat("{\"input\":[", items, "]}")))["message"],
              HasSubstr("at most 100; there are 101"));
  EXPECT_EQ(Ask(R"({"input":"a"})", absl::StrCat("quiver-tenant: ", std::string(129, 't'), "\r\n"))
                .status,
            400);
}

TEST_F(OpenAiRoutesTest, FullQueueSaysWhenToTryAgain) {
  Setup setup;
  setup.embedder.scheduler.max_queued_tasks = 2;
  Serve(std::move(setup));
  gate_.Close();
  RawHttpClient running(http_->port());
  running.Send(Post(R"({"input":"running"})"));
  gate_.AwaitWaiter();
  RawHttpClient waiting(http_->port());
  waiting.Send(Post(R"({"input":["a","b"]})"));
  AwaitQueued(2);
  const auto refused = Ask(R"({"input":"c"})");
  EXPECT_EQ(refused.status, 429);
  EXPECT_TRUE(refused.Has("Retry-After: 1")) << refused.head;
  EXPECT_THAT(refused.head, HasSubstr("\r\nretry-after-ms: "));
  EXPECT_EQ(ErrorOf(refused)["code"], "rate_limit_exceeded");
  gate_.Open();
  EXPECT_EQ(running.Read().status, 200);
  EXPECT_EQ(waiting.Read().status, 200);
}

TEST_F(OpenAiRoutesTest, InputThatFailsEndsTheRequestBeforeOthersAreComputed) {
  Serve();
  const size_t passes = backend_->Passes().size();
  gate_.Close();
  RawHttpClient running(http_->port());
  running.Send(Post(R"({"input":"running"})"));
  gate_.AwaitWaiter();
  RawHttpClient failing(http_->port());
  failing.Send(Post(R"({"input":["good","","good too"]})"));
  AwaitQueued(2);
  gate_.Open();
  EXPECT_EQ(running.Read().status, 200);
  const auto response = failing.Read();
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(ErrorOf(response)["param"], "input[1]");
  EXPECT_EQ(Ask(R"({"input":"afterwards"})").status, 200);
  EXPECT_EQ(backend_->Passes().size(), passes + 2);
  std::vector<absl::StatusCode> codes;
  for (const RequestReport& report : observer_.Reports(Rpc::kEmbed, 3))
    codes.push_back(report.code);
  EXPECT_THAT(codes, UnorderedElementsAre(absl::StatusCode::kOk, absl::StatusCode::kOk,
                                          absl::StatusCode::kInvalidArgument));
}

TEST_F(OpenAiRoutesTest, RequestThatTheQueueWouldNeverTakeWholeIsRefused) {
  Serve();
  const std::string text(400, 'x');
  std::string inputs;
  for (int i = 0; i < 20; ++i) absl::StrAppend(&inputs, i == 0 ? "\"" : ",\"", text, "\"");
  const auto response = Ask(absl::StrCat("{\"input\":[", inputs, "]}"));
  EXPECT_EQ(response.status, 400) << response.body;
  EXPECT_EQ(ErrorOf(response)["param"], "input");
  EXPECT_THAT(ErrorOf(response)["message"].get<std::string>(),
              HasSubstr("must have at most 2000 tokens in all"));
}

TEST_F(OpenAiRoutesTest, ServerThatIsNotReadySaysSo) {
  Setup setup;
  setup.serve = false;
  Serve(std::move(setup));
  const auto response = Ask(R"({"input":"a"})");
  EXPECT_EQ(response.status, 503);
  EXPECT_TRUE(response.Has("Retry-After: 1"));
  EXPECT_EQ(ErrorOf(response)["type"], "server_error");
  EXPECT_EQ(RawHttpClient(http_->port()).Get("/v1/models").status, 503);
}

TEST_F(OpenAiRoutesTest, ClientThatGoesAwayCancelsItsRequest) {
  Serve();
  gate_.Close();
  RawHttpClient running(http_->port());
  running.Send(Post(R"({"input":"running"})"));
  gate_.AwaitWaiter();
  {
    RawHttpClient leaving(http_->port());
    leaving.Send(Post(R"({"input":"waiting"})"));
    AwaitQueued(1);
  }
  // The server's one thread sees what happened to one connection before what comes on another.
  for (int i = 0; i < 3; ++i) EXPECT_EQ(RawHttpClient(http_->port()).Get("/v1/models").status, 200);
  gate_.Open();
  EXPECT_EQ(running.Read().status, 200);
  std::vector<absl::StatusCode> codes;
  for (const RequestReport& report : observer_.Reports(Rpc::kEmbed, 2))
    codes.push_back(report.code);
  EXPECT_THAT(codes, UnorderedElementsAre(absl::StatusCode::kOk, absl::StatusCode::kCancelled));
}

TEST_F(OpenAiRoutesTest, ModelsAreListedUnderEveryName) {
  Serve();
  RawHttpClient client(http_->port());
  const json list = json::parse(client.Get("/v1/models").body);
  ASSERT_EQ(list["data"].size(), 2);
  EXPECT_EQ(list["data"][0]["id"], "fake-model");
  EXPECT_EQ(list["data"][1]["id"], "an-alias");
  EXPECT_EQ(json::parse(client.Get("/v1/models/an%2Dalias").body)["id"], "an-alias");
  for (const char* path : {"/v1/models/an/alias", "/v1/models/%", "/v1/models/%zz"}) {
    const auto response = client.Get(path);
    EXPECT_EQ(response.status, 404) << path;
    EXPECT_TRUE(IsRefusal(response)) << path;
  }
}

}  // namespace
}  // namespace quiver
