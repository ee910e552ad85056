#include "server/otlp_options.h"

#include <cstdlib>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quiver {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;

constexpr const char* kVariables[] = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS",
                                      "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"};

class OtlpOptionsTest : public ::testing::Test {
 protected:
  OtlpOptionsTest() { Clear(); }
  ~OtlpOptionsTest() override { Clear(); }

  static void Clear() {
    for (const char* variable : kVariables) unsetenv(variable);
  }
  static OtlpOptions Read(const std::string& endpoint) {
    const auto options = ReadOtlpOptions(endpoint);
    return options.ok() && options->has_value() ? **options : OtlpOptions();
  }
  static std::string Error(const std::string& endpoint) {
    return std::string(ReadOtlpOptions(endpoint).status().message());
  }
};

TEST_F(OtlpOptionsTest, UrlsAreTakenApart) {
  struct Case {
    const char* url;
    bool tls;
    const char* host;
    const char* authority;
    const char* path;
  };
  for (const Case& c : {
           Case{"http://collector:4318", false, "collector", "collector:4318", "/v1/traces"},
           Case{"http://collector:4318/", false, "collector", "collector:4318", "/v1/traces"},
           Case{"https://x.example", true, "x.example", "x.example", "/v1/traces"},
           Case{"http://x:80/a/b", false, "x", "x", "/a/b/v1/traces"},
           Case{"http://[::1]:4318", false, "::1", "[::1]:4318", "/v1/traces"},
       }) {
    const auto endpoint = ParseOtlpEndpoint(c.url);
    ASSERT_TRUE(endpoint.has_value()) << c.url;
    EXPECT_EQ(endpoint->tls, c.tls) << c.url;
    EXPECT_EQ(endpoint->host, c.host) << c.url;
    EXPECT_EQ(endpoint->authority(), c.authority) << c.url;
    EXPECT_EQ(endpoint->path, c.path) << c.url;
  }
}

TEST_F(OtlpOptionsTest, WhatIsNoUrlIsRefused) {
  for (const char* bad :
       {"", "collector:4318", "grpc://x:4317", "http://", "http://:4318", "http://x:", "http://x:0",
        "http://x:65536", "http://x:y", "http://[::1", "http://[::1]4318", "http://user@x:4318",
        "http://x/?a=b", "http://x y", "http://x/\r\nA: b"}) {
    EXPECT_FALSE(ParseOtlpEndpoint(bad).has_value()) << bad;
  }
}

TEST_F(OtlpOptionsTest, WithoutAnEndpointThereIsNothing) {
  setenv("OTEL_SERVICE_NAME", "name", 1);
  const auto options = ReadOtlpOptions("");
  ASSERT_TRUE(options.ok());
  EXPECT_FALSE(options->has_value());
}

TEST_F(OtlpOptionsTest, TheFlagGoesBeforeTheEnvironment) {
  setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://environment:1", 1);
  EXPECT_EQ(Read("").endpoint.host, "environment");
  EXPECT_EQ(Read("http://flag:1").endpoint.host, "flag");
}

TEST_F(OtlpOptionsTest, TheProcessHasANameAndAnInstance) {
  EXPECT_THAT(Read("http://x:1").resource,
              ElementsAre(Pair("service.name", "quiver-server"), Key("service.version"),
                          Key("service.instance.id")));
  setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,k8s.pod.name=p%20q,service.instance.id=i", 1);
  EXPECT_THAT(Read("http://x:1").resource,
              ElementsAre(Pair("service.name", "a"), Pair("k8s.pod.name", "p q"),
                          Pair("service.instance.id", "i"), Key("service.version")));
  setenv("OTEL_SERVICE_NAME", "b", 1);
  EXPECT_THAT(Read("http://x:1").resource, Contains(Pair("service.name", "b")));
  EXPECT_THAT(Read("http://x:1").resource, Not(Contains(Pair("service.name", "a"))));
}

TEST_F(OtlpOptionsTest, HeadersAreReadAndNeverTold) {
  setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%2Cb, x-scope = 1 ,", 1);
  EXPECT_THAT(Read("http://x:1").headers,
              ElementsAre(Pair("api-key", "a,b"), Pair("x-scope", "1")));
  for (const char* bad :
       {"secret", "a=1,=secret", "a=secret%0d%0aB: c", "a=secret%", "b c=secret"}) {
    setenv("OTEL_EXPORTER_OTLP_HEADERS", bad, 1);
    EXPECT_THAT(Error("http://x:1"), HasSubstr("OTEL_EXPORTER_OTLP_HEADERS")) << bad;
    EXPECT_THAT(Error("http://x:1"), Not(HasSubstr("secret"))) << bad;
  }
}

TEST_F(OtlpOptionsTest, AWrongEndpointNamesWhereItStood) {
  EXPECT_THAT(Error("x"), HasSubstr("--otlp-endpoint must be http://HOST:PORT"));
  setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "y", 1);
  EXPECT_THAT(Error(""), HasSubstr("OTEL_EXPORTER_OTLP_ENDPOINT must be"));
  EXPECT_THAT(Error(""), HasSubstr("not 'y'"));
}

}  // namespace
}  // namespace quiver
