#include "server/tei_routes.h"

#include <string>

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

using TeiRoutesTest = HttpRoutesTest;

TEST_F(TeiRoutesTest, ClientsOfTextEmbeddingsInferenceFindTheirForm) {
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
  EXPECT_EQ(info["dimensions"]["max"], embedder_->info().config.hidden_size);
  EXPECT_EQ(info["prompts"].size(), embedder_->info().config.prompts.size());
}

}  // namespace
}  // namespace quiver
