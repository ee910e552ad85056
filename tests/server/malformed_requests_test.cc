// What no client in its right mind sends: always a client's error in OpenAI's form.
#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/server/http_routes_fixture.h"

namespace quiver {
namespace {

using MalformedRequestsTest = HttpRoutesTest;

TEST_F(MalformedRequestsTest, RequestsWhoseEndIsInDoubtAreRefused) {
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
           "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding: identity\r\nContent-Length: 13\r\n\r\n{\"input\":\"a\"}",
           "Transfer-Encoding:\r\nContent-Length: 13\r\n\r\n{\"input\":\"a\"}",
           "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           "Content-Length: 13\r\n X: y\r\n\r\n{\"input\":\"a\"}",
           "Content-Length: +13\r\n\r\n{\"input\":\"a\"}",
           "Content-Length: 99999999999999999999\r\n\r\n{",
           "Content-Length: 13\r\nHost: y\r\n\r\n{\"input\":\"a\"}",
       }) {
    RawHttpClient client(http_->port());
    const auto response = client.Ask(start + rest);
    EXPECT_TRUE(IsRefusal(response) || response.status == 501) << rest << "\n"
                                                               << response.status << response.body;
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

TEST_F(MalformedRequestsTest, EveryMalformedBodyIsRefusedAndTheServerLivesOn) {
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
