#include "server/openai_routes.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/api_keys.h"
#include "server/http_server.h"
#include "server/openai_reply.h"
#include "server/tei_routes.h"
#include "tests/server/raw_http_client.h"
#include "tests/server/service_fixture.h"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr int64_t kMaxBodyBytes = 1 << 20;
constexpr int kMaxItems = 100;

class OpenAiRoutesTest : public ServiceTest {
 protected:
  void Serve(Setup setup = {}) {
    HttpServer::Options options = {.num_threads = 1};
    options.api_keys = setup.service.api_keys;
    Start(std::move(setup));
    HttpRouter router;
    AddOpenAiRoutes({.max_items_per_request = kMaxItems, .max_body_bytes = kMaxBodyBytes},
                    model_.get(), calls_.get(), &observer_, &router);
    AddTeiRoutes({.max_items_per_request = kMaxItems, .max_body_bytes = kMaxBodyBytes}, "1.2.3",
                 model_.get(), calls_.get(), &observer_, &router);
    auto http = HttpServer::Create(options, std::move(router));
    ASSERT_TRUE(http.ok()) << http.status();
    http_ = *std::move(http);
    http_->Start();
  }
  ~OpenAiRoutesTest() override {
    gate_.Open();
    if (http_ != nullptr) http_->Stop(absl::Now() + absl::Seconds(10));
  }

  static std::string Post(absl::string_view body, absl::string_view headers = "",
                          absl::string_view path = "/v1/embeddings") {
    return absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: x\r\n", headers,
                        "Content-Length: ", body.size(), "\r\n\r\n", body);
  }
  RawHttpClient::Response AskTei(absl::string_view body) {
    return RawHttpClient(http_->port()).Ask(Post(body, "", "/embed"));
  }
  RawHttpClient::Response Ask(absl::string_view body, absl::string_view headers = "") {
    return RawHttpClient(http_->port()).Ask(Post(body, headers));
  }

  void AwaitQueued(int64_t tasks) {
    while (embedder_->Snapshot().lanes[0].tasks < tasks) absl::SleepFor(absl::Milliseconds(1));
  }

  std::unique_ptr<HttpServer> http_;
};

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

// Whether it is a client's error in OpenAI's form.
bool IsRefusal(const RawHttpClient::Response& response) {
  if (response.status < 400 || response.status > 499) return false;
  const json body = json::parse(response.body, nullptr, false);
  if (!body.is_object() || !body.contains("error")) return false;
  const json& error = body["error"];
  return error.contains("message") && error["message"].is_string() && error.contains("type") &&
         error["type"].is_string() && error.contains("param") && error.contains("code");
}

json ErrorOf(const RawHttpClient::Response& response) {
  EXPECT_TRUE(response.status >= 400) << response.body;
  return json::parse(response.body).at("error");
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
      {R"({"input":[[1],[-1]]})", 400, "input[1]"},
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
      {R"({"input":"a","model":"other"})", 404, nullptr},
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

// Two keys, one of them with a name and in capitals.
std::shared_ptr<const ApiKeys> TwoKeys() {
  const std::string path = TestDir("keys") + "/keys";
  std::ofstream(path) << "# printf %s KEY | sha256sum\n\n"
                         "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683 alice\n"
                         "FDB0BFA2CBE0FBF1B1B5A2D1C0F9E8D7C6B5A4938271605F4E3D2C1B0A998877\n";
  auto keys = ApiKeys::Load(path);
  EXPECT_TRUE(keys.ok()) << keys.status();
  return keys.ok() ? *keys : nullptr;
}

TEST_F(OpenAiRoutesTest, BothDoorsAskForAKeyOfTheFile) {
  Setup setup;
  setup.service.api_keys = TwoKeys();
  Serve(std::move(setup));
  for (const char* header : {"", "Authorization: Bearer other\r\n", "Authorization: Bearer \r\n",
                             "Authorization: key\r\n", "Authorization: Basic key\r\n"}) {
    const auto response = Ask(R"({"input":"a"})", header);
    EXPECT_EQ(response.status, 401) << header;
    EXPECT_TRUE(IsRefusal(response));
    EXPECT_EQ(ErrorOf(response)["code"], "invalid_api_key");
    EXPECT_TRUE(response.Has("WWW-Authenticate: Bearer"));
  }
  EXPECT_EQ(RawHttpClient(http_->port()).Get("/v1/models").status, 401);
  EXPECT_EQ(RawHttpClient(http_->port()).Get("/v1/models/fake-model").status, 401);
  EXPECT_EQ(Ask(R"({"input":"a"})", "authorization: bearer key\r\n").status, 200);

  v1::EmbedResponse response;
  EXPECT_EQ(Embed(Request({"a"}), &response).error_code(), grpc::StatusCode::UNAUTHENTICATED);
  for (const char* key : {"key", "other"}) {
    const grpc::StatusCode expected =
        absl::string_view(key) == "key" ? grpc::StatusCode::OK : grpc::StatusCode::UNAUTHENTICATED;
    grpc::ClientContext unary;
    unary.AddMetadata("authorization", absl::StrCat("Bearer ", key));
    EXPECT_EQ(stub_->Embed(&unary, Request({"a"}), &response).error_code(), expected);
    grpc::ClientContext streaming;
    streaming.AddMetadata("authorization", absl::StrCat("Bearer ", key));
    const auto stream = stub_->EmbedStream(&streaming);
    v1::EmbedStreamRequest first;
    first.mutable_start();
    stream->Write(first);
    stream->WritesDone();
    v1::EmbedStreamResponse part;
    while (stream->Read(&part)) {
    }
    EXPECT_EQ(stream->Finish().error_code(), expected);
  }
}

TEST(ApiKeysTest, FileThatIsNoListOfHashesIsRefusedByLine) {
  const std::string path = TestDir("keys") + "/keys";
  EXPECT_THAT(ApiKeys::Load(path).status().message(), HasSubstr("cannot read"));
  std::ofstream(path) << "# nothing\n";
  EXPECT_THAT(ApiKeys::Load(path).status().message(), HasSubstr("there is no key"));
  std::ofstream(path) << "\nmy-secret-key\n";
  const auto plain = ApiKeys::Load(path);
  EXPECT_THAT(plain.status().message(), HasSubstr("line 2: must begin with the SHA-256"));
  EXPECT_THAT(plain.status().message(), Not(HasSubstr("my-secret-key")));
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

TEST_F(OpenAiRoutesTest, ClientsOfTextEmbeddingsInferenceFindTheirForm) {
  Serve();
  std::string vectors;
  for (const char* text : {"a", "b"}) {
    vectors += vectors.empty() ? '[' : ',';
    AppendFloats(VectorOf(text, {.dimensions = 16}), &vectors);
  }
  EXPECT_EQ(AskTei(R"({"inputs":["a","b"],"dimensions":16,"prompt_name":null})").body,
            vectors + "]");
  EXPECT_EQ(json::parse(AskTei(R"({"inputs":"a","normalize":false})").body).size(), 1);

  const std::string ends = "b" + std::string(600, 'x') + "e";
  const auto cut = [&](const char* direction) {
    return AskTei(absl::StrCat(R"({"truncation_direction":")", direction,
                               R"(","truncate":true,"inputs":")", ends, "\"}"));
  };
  EXPECT_EQ(cut("Right").status, 200);
  EXPECT_NE(cut("Left").body, cut("Right").body);

  struct Case {
    const char* body;
    int status;
    const char* message;
  };
  for (const Case& c :
       {Case{"{", 422, "not valid JSON"}, Case{R"({"input":"a"})", 422, "inputs: "},
        Case{R"({"inputs":["a",""]})", 413, "inputs[1]: "},
        Case{R"({"inputs":"a","dimensions":7})", 413, "dimensions: "},
        Case{R"({"inputs":"a","truncation_direction":"up"})", 422, "truncation_direction: "}}) {
    const auto response = AskTei(c.body);
    EXPECT_EQ(response.status, c.status) << c.body << response.body;
    const json error = json::parse(response.body);
    EXPECT_THAT(error["error"].get<std::string>(), HasSubstr(c.message));
    EXPECT_EQ(error["error_type"], "Validation");
  }
  const json info = json::parse(RawHttpClient(http_->port()).Get("/info").body);
  EXPECT_EQ(info["model_id"], "fake-model");
  EXPECT_EQ(info["max_input_length"], 512);
  EXPECT_EQ(info["max_client_batch_size"], kMaxItems);
}

TEST_F(OpenAiRoutesTest, RequestsWhoseEndIsInDoubtAreRefused) {
  Serve();
  const std::string start = "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n";
  for (const char* rest : {
           "Content-Length: 13\r\nTransfer-Encoding: chunked\r\n\r\n{\"input\":\"a\"}",
           "Content-Length: 13\r\nContent-Length: 14\r\n\r\n{\"input\":\"a\"} ",
           "Content-Length: -1\r\n\r\n",
           "Content-Length: 1x\r\n\r\n{",
           "Content-Length : 13\r\n\r\n{\"input\":\"a\"}",
           "Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n",
           "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n",
       }) {
    RawHttpClient client(http_->port());
    const auto response = client.Ask(start + rest);
    EXPECT_TRUE(IsRefusal(response)) << rest << "\n" << response.status << response.body;
    EXPECT_TRUE(client.ReadsEnd()) << rest;
  }
}

// Bodies made of a good one and of known nuisances; none of them is a good request.
std::vector<std::string> MalformedBodies() {
  const std::string good = R"({"model":"fake-model","input":["a","b \u00e9 \n"],"dimensions":16})";
  std::vector<std::string> bodies;
  for (size_t i = 0; i < good.size(); ++i) bodies.push_back(good.substr(0, i));
  // Bytes that stand nowhere in JSON.
  for (const char byte : {'\0', '\x01', '\x1f', '\x80', '\xbf', '\xc0', '\xed', '\xf5', '\xff'}) {
    for (size_t i = 0; i <= good.size(); ++i) {
      bodies.push_back(good.substr(0, i) + byte + good.substr(i));
    }
  }
  for (const char* number : {"1e999",
                             "-1e999",
                             "123456789012345678901234567890",
                             "-9223372036854775809",
                             "1e5",
                             "1.5",
                             "0x10",
                             "01",
                             "+1",
                             ".5",
                             "1.",
                             "NaN",
                             "Infinity",
                             "-",
                             "-0.0",
                             "\"1\"",
                             "true",
                             "[1]",
                             "{}",
                             "-1",
                             "0",
                             "2147483648",
                             "9223372036854775807"}) {
    for (const char* form : {R"({"input":"a","dimensions":%})", R"({"input":[1,%.5]})",
                             R"({"input":["a",%,[]]})", R"({"input":[[%],"a"]})",
                             R"({"input":"a","normalize":[%]})", R"({"model":[%],"input":"a"})"}) {
      std::string body = form;
      bodies.push_back(body.replace(body.find('%'), 1, number));
    }
  }
  for (const char* key : {"input", "model", "encoding_format", "dimensions", "user", "prompt_name",
                          "instruction", "truncate", "normalize", "priority"}) {
    for (const char* value : {"{}", "[]", "[null]", "[[]]", "[[[1]]]", "{\"a\":1}", "1.5", "[{}]",
                              "[true]", "[\"a\",null]", "\"\\ud800\"", "\"\\u12\"", "\"\\x\"",
                              "nul", "'a'", "\"a", "[1,]", "[,]", "tru"}) {
      bodies.push_back(absl::StrCat("{\"", key, "\":", value,
                                    absl::string_view(key) == "input" ? "}" : ",\"input\":\"a\"}"));
    }
    bodies.push_back(absl::StrCat("{\"input\":\"a\",\"", key, "\":null,\"", key, "\":null}"));
  }
  for (const int depth : {65, 1000, 100'000}) {
    for (const char* open : {"[", "{\"a\":"}) {
      std::string nested;
      for (int i = 0; i < depth; ++i) nested += open;
      for (const char* key : {"input", "other"}) {
        bodies.push_back(absl::StrCat("{\"input\":\"a\",\"", key, "2\":", nested));
        bodies.push_back(absl::StrCat("{\"", key, "\":", nested));
      }
      bodies.push_back(nested);
    }
  }
  // The good one with a byte that is in no UTF-8 text, and another one changed.
  std::mt19937 random(11);
  while (bodies.size() < 2500) {
    std::string body = good;
    body[random() % body.size()] = static_cast<char>(random() % 0x100);
    body[random() % body.size()] = static_cast<char>(0xF8 + random() % 8);
    bodies.push_back(std::move(body));
  }
  return bodies;
}

TEST_F(OpenAiRoutesTest, EveryMalformedBodyIsRefusedAndTheServerLivesOn) {
  Serve();
  const std::vector<std::string> bodies = MalformedBodies();
  EXPECT_GE(bodies.size(), 2000);
  RawHttpClient client(http_->port());
  for (const std::string& body : bodies) {
    const auto response = client.Ask(Post(body));
    ASSERT_TRUE(IsRefusal(response)) << absl::CHexEscape(body.substr(0, 200)) << "\n"
                                     << response.status << response.body;
  }
  EXPECT_EQ(client.Ask(Post(R"({"input":"a"})")).status, 200);
}

}  // namespace
}  // namespace quiver
