// Every HTTP route that answers with the model, over a real port with a fake engine behind it.
#ifndef QUIVER_TESTS_SERVER_HTTP_ROUTES_FIXTURE_H_
#define QUIVER_TESTS_SERVER_HTTP_ROUTES_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/http_server.h"
#include "server/openai_routes.h"
#include "server/operational_routes.h"
#include "server/tei_routes.h"
#include "server/web_routes.h"
#include "tests/server/raw_http_client.h"
#include "tests/server/service_fixture.h"

namespace quiver {

inline constexpr int64_t kMaxBodyBytes = 1 << 20;
inline constexpr int kMaxItems = 100;
inline constexpr int64_t kMaxRequestTokens = 2000;

class HttpRoutesTest : public ServiceTest {
 protected:
  void Serve(Setup setup = {}) {
    HttpServer::Options options = {.num_threads = 1};
    options.api_keys = setup.service.api_keys;
    Start(std::move(setup));
    HttpRouter router;
    const EmbedRouteOptions embed = {.max_items_per_request = kMaxItems,
                                     .max_body_bytes = kMaxBodyBytes,
                                     .max_request_tokens = kMaxRequestTokens};
    AddOpenAiRoutes(embed, model_.get(), calls_.get(), &observer_, &router);
    AddTeiRoutes(embed, "1.2.3", model_.get(), calls_.get(), &observer_, &router);
    AddOperationalRoutes(&router, &state_, [] { return ""; });
    AddWebRoutes("1.2.3", kMaxItems, model_.get(), &router);
    auto http = HttpServer::Create(options, std::move(router));
    ASSERT_TRUE(http.ok()) << http.status();
    http_ = *std::move(http);
    http_->Start();
  }
  ~HttpRoutesTest() override {
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

// Whether it is a client's error in OpenAI's form.
inline bool IsRefusal(const RawHttpClient::Response& response) {
  if (response.status < 400 || response.status > 499) return false;
  const nlohmann::json body = nlohmann::json::parse(response.body, nullptr, false);
  if (!body.is_object() || !body.contains("error")) return false;
  const nlohmann::json& error = body["error"];
  return error.contains("message") && error["message"].is_string() && error.contains("type") &&
         error["type"].is_string() && error.contains("param") && error.contains("code");
}

inline nlohmann::json ErrorOf(const RawHttpClient::Response& response) {
  EXPECT_TRUE(response.status >= 400) << response.body;
  return nlohmann::json::parse(response.body).at("error");
}

}  // namespace quiver

#endif  // QUIVER_TESTS_SERVER_HTTP_ROUTES_FIXTURE_H_
