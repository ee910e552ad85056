#include "server/api_keys.h"

#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/http_routes_fixture.h"
#include "tests/testing/tiny_checkpoint.h"

namespace quiver {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

using ApiKeysTest = HttpRoutesTest;

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

TEST_F(ApiKeysTest, BothDoorsAskForAKeyOfTheFile) {
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

TEST(ApiKeysFileTest, FileThatIsNoListOfHashesIsRefusedByLine) {
  const std::string path = TestDir("keys") + "/keys";
  EXPECT_THAT(ApiKeys::Load(path).status().message(), HasSubstr("cannot be read"));
  EXPECT_THAT(ApiKeys::Load(TestDir("keys")).status().message(), HasSubstr("cannot be read"));
  std::ofstream(path) << "# nothing\n";
  EXPECT_THAT(ApiKeys::Load(path).status().message(), HasSubstr("there is no key"));
  std::ofstream(path) << "\nmy-secret-key\n";
  const auto plain = ApiKeys::Load(path);
  EXPECT_THAT(plain.status().message(), HasSubstr("line 2: must begin with the SHA-256"));
  EXPECT_THAT(plain.status().message(), Not(HasSubstr("my-secret-key")));
}

}  // namespace
}  // namespace quiver
