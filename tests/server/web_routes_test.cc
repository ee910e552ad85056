#include "server/web_routes.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/operational_routes.h"
#include "tests/server/http_routes_fixture.h"

namespace quiver {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

using WebRoutesTest = HttpRoutesTest;

TEST_F(WebRoutesTest, PageLoadsNothingFromElsewhereAndIsFramedByNobody) {
  Serve();
  const auto page = RawHttpClient(http_->port()).Get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_TRUE(page.Has("Content-Type: text/html; charset=utf-8"));
  EXPECT_THAT(page.head, HasSubstr("Content-Security-Policy: default-src 'none'; "));
  EXPECT_THAT(page.head, HasSubstr("frame-ancestors 'none'"));
  for (const char* remote : {"http://", "https://", "src=\"//"}) {
    EXPECT_THAT(page.body, Not(HasSubstr(remote)));
  }
}

TEST_F(WebRoutesTest, DescriptionHasTheServersOwnLimits) {
  Serve();
  const json all = json::parse(RawHttpClient(http_->port()).Get("/openapi.json").body);
  EXPECT_EQ(all["info"]["version"], "1.2.3");
  const json& schemas = all["components"]["schemas"];
  const ModelInfo& info = embedder_->info();
  EXPECT_EQ(schemas["Dimensions"]["maximum"], info.config.hidden_size);
  EXPECT_EQ(schemas["Dimensions"]["minimum"], info.config.min_dimensions);
  EXPECT_EQ(schemas["TokenIds"]["maxItems"], info.max_input_tokens);
  EXPECT_EQ(schemas["TokenIds"]["items"]["maximum"], info.vocabulary_size - 1);
  EXPECT_THAT(schemas["PromptName"]["enum"], Contains("query"));
  EXPECT_EQ(schemas["Input"]["anyOf"][1]["maxItems"], kMaxItems);
}

TEST_F(WebRoutesTest, DescriptionIsThereBeforeTheModelIs) {
  Setup setup;
  setup.serve = false;
  Serve(std::move(setup));
  const json all = json::parse(RawHttpClient(http_->port()).Get("/openapi.json").body);
  EXPECT_FALSE(all["components"]["schemas"]["Dimensions"].contains("maximum"));
}

TEST_F(WebRoutesTest, EveryPathOfTheDescriptionIsServed) {
  Serve();
  const json all = json::parse(RawHttpClient(http_->port()).Get("/openapi.json").body);
  for (const auto& [path, methods] : all["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      const std::string target = absl::StrReplaceAll(path, {{"{model}", "fake-model"}});
      const auto response =
          RawHttpClient(http_->port())
              .Ask(absl::StrCat(absl::AsciiStrToUpper(method), " ", target,
                                " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
      EXPECT_NE(response.status, 404) << path;
      EXPECT_NE(response.status, 405) << path;
      EXPECT_TRUE(operation["responses"].contains(absl::StrCat(response.status)))
          << path << " " << response.status;
    }
  }
}

}  // namespace
}  // namespace quiver
