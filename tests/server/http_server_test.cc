#include "server/http_server.h"

#include <sys/resource.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/raw_http_client.h"

namespace quiver {
namespace {

using ::testing::HasSubstr;

// What /later was asked, to be answered by the test.
struct Pending {
  absl::Mutex mutex;
  std::optional<HttpRequest> request ABSL_GUARDED_BY(mutex);
  std::optional<HttpResponder> responder ABSL_GUARDED_BY(mutex);

  void Await() {
    absl::MutexLock lock(&mutex);
    const auto has = [this]()
                         ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { return responder.has_value(); };
    ASSERT_TRUE(mutex.AwaitWithTimeout(absl::Condition(&has), absl::Seconds(20)));
  }
  void Answer(const std::string& body) {
    Await();
    absl::MutexLock lock(&mutex);
    HttpResponse response;
    response.body = body;
    responder->Send(std::move(response));
    responder.reset();
  }
};

class HttpServerTest : public ::testing::Test {
 protected:
  void Serve(HttpServer::Options options = {}) {
    HttpRouter router;
    router.Add("GET", "/hello", {0, [](HttpRequest request, HttpResponder responder) {
                                   HttpResponse response;
                                   response.content_type = "text/plain";
                                   response.body = "hello " + request.query;
                                   responder.Send(std::move(response));
                                 }});
    router.Add("POST", "/echo", {1 << 20, [](HttpRequest request, HttpResponder responder) {
                                   HttpResponse response;
                                   response.body = std::move(request.body);
                                   responder.Send(std::move(response));
                                 }});
    router.Add("GET", "/later", {0, [this](HttpRequest request, HttpResponder responder) {
                                   absl::MutexLock lock(&pending_.mutex);
                                   pending_.request = std::move(request);
                                   pending_.responder.emplace(std::move(responder));
                                 }});
    router.Add("GET", "/forget", {0, [](HttpRequest, HttpResponder) {}});
    auto server = HttpServer::Create(options, std::move(router));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    server_->Start();
  }

  RawHttpClient Connect() { return RawHttpClient(server_->port()); }

  Pending pending_;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersOnOneConnectionAgainAndAgain) {
  Serve();
  RawHttpClient client = Connect();
  for (int i = 0; i < 100; ++i) {
    const auto response = client.Get(absl::StrCat("/hello?", i));
    ASSERT_EQ(response.status, 200);
    ASSERT_EQ(response.body, absl::StrCat("hello ", i));
  }
  EXPECT_EQ(server_->stats().accepted_connections, 1);
  EXPECT_EQ(server_->stats().responses[0], 100);
}

TEST_F(HttpServerTest, PipelinedRequestsAreAnsweredInOrder) {
  Serve();
  RawHttpClient client = Connect();
  std::string requests;
  for (int i = 0; i < 50; ++i) {
    absl::StrAppend(&requests, "GET /hello?", i, " HTTP/1.1\r\nHost: x\r\n\r\n");
    absl::StrAppend(&requests, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n",
                    100 + i);
  }
  client.Send(requests);
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(client.Read().body, absl::StrCat("hello ", i));
    ASSERT_EQ(client.Read().body, absl::StrCat(100 + i));
  }
}

TEST_F(HttpServerTest, AnEmptyLineBeforeARequestIsPassedOver) {
  Serve();
  RawHttpClient client = Connect();
  EXPECT_EQ(client.Ask("\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
  // Pipelined behind a body, and alone, with the request later.
  client.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab\r\n");
  EXPECT_EQ(client.Read().body, "ab");
  EXPECT_EQ(client.Get("/hello?c").body, "hello c");
}

TEST_F(HttpServerTest, RequestSentByteByByteIsUnderstood) {
  Serve();
  RawHttpClient client = Connect();
  for (char c : std::string("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                            "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")) {
    ASSERT_TRUE(client.Send(std::string(1, c)));
  }
  EXPECT_EQ(client.Read().body, "abcde");
  EXPECT_EQ(client.Get("/hello").status, 200);
}

TEST_F(HttpServerTest, HeadHasTheLengthButNotTheBody) {
  Serve();
  RawHttpClient client = Connect();
  client.Send("HEAD /hello?abc HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto response = client.Read(/*head=*/true);
  EXPECT_EQ(response.status, 200);
  EXPECT_TRUE(response.Has("Content-Length: 9"));
  // What follows is the next response, not a body.
  EXPECT_EQ(client.Get("/hello?d").body, "hello d");
}

TEST_F(HttpServerTest, UnknownPathAndMethodKeepTheConnection) {
  Serve();
  RawHttpClient client = Connect();
  EXPECT_EQ(client.Get("/nothing").status, 404);
  const auto response = client.Ask("DELETE /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(response.status, 405);
  EXPECT_TRUE(response.Has("Allow: GET, HEAD"));
  EXPECT_TRUE(response.Has("Content-Type: application/json"));
  EXPECT_THAT(response.body, HasSubstr("\"message\""));
  EXPECT_EQ(client.Get("/hello").status, 200);
}

TEST_F(HttpServerTest, RefusalsAreToldAndCounted) {
  absl::Mutex mutex;
  std::vector<std::string> told;
  Serve({.on_refusal = [&](const HttpRefusal& refusal) {
    EXPECT_THAT(std::string(refusal.peer), HasSubstr("127.0.0.1:"));
    absl::MutexLock lock(&mutex);
    told.push_back(absl::StrCat(refusal.status, " ", refusal.method, " ", refusal.path));
  }});
  EXPECT_EQ(Connect().Get("/nothing?secret").status, 404);
  EXPECT_EQ(Connect().Get("/hello").status, 200);
  EXPECT_EQ(Connect().Ask("DELETE /hello HTTP/1.1\r\nHost: x\r\n\r\n").status, 405);
  EXPECT_EQ(Connect().Ask("GET /hello HTTP/1.1\r\nHost : x\r\n\r\n").status, 400);
  absl::MutexLock lock(&mutex);
  EXPECT_THAT(told, ::testing::ElementsAre("404 GET /nothing", "405 DELETE /hello", "400  "));
  const HttpServer::Stats stats = server_->stats();
  int64_t responses = 0;
  for (size_t i = 0; i < kHttpStatuses.size(); ++i) {
    const bool seen = kHttpStatuses[i] == 200 || kHttpStatuses[i] == 400 ||
                      kHttpStatuses[i] == 404 || kHttpStatuses[i] == 405;
    EXPECT_EQ(stats.responses[i], seen ? 1 : 0) << kHttpStatuses[i];
    responses += stats.responses[i];
  }
  EXPECT_EQ(responses, 4);
}

TEST_F(HttpServerTest, AbsoluteTargetIsUnderstood) {
  Serve();
  EXPECT_EQ(Connect().Get("http://example.org:80/hello?q").body, "hello q");
}

TEST_F(HttpServerTest, ConnectionCloseIsHonoured) {
  Serve();
  RawHttpClient client = Connect();
  EXPECT_TRUE(client.Ask("GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                  .Has("Connection: close"));
  EXPECT_TRUE(client.ReadsEnd());

  RawHttpClient old = Connect();
  EXPECT_EQ(old.Ask("GET /hello HTTP/1.0\r\n\r\n").status, 200);
  EXPECT_TRUE(old.ReadsEnd());
}

TEST_F(HttpServerTest, ExpectContinueIsAnsweredBeforeTheBody) {
  Serve();
  RawHttpClient client = Connect();
  EXPECT_EQ(client
                .Ask("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                     "Expect: 100-continue\r\n\r\n")
                .status,
            100);
  EXPECT_EQ(client.Ask("ok").body, "ok");

  // No body is asked for that would be refused.
  EXPECT_EQ(Connect()
                .Ask("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n"
                     "Expect: 100-continue\r\n\r\n")
                .status,
            413);
  EXPECT_EQ(Connect()
                .Ask("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: tea\r\n\r\n")
                .status,
            417);
}

TEST_F(HttpServerTest, LongBodyIsRefusedAndTheAnswerArrives) {
  Serve();
  const std::string body(3 << 20, 'x');
  RawHttpClient sized = Connect();
  sized.Send(
      absl::StrCat("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(), "\r\n\r\n"));
  sized.Send(body);
  EXPECT_EQ(sized.Read().status, 413);
  EXPECT_TRUE(sized.ReadsEnd());

  RawHttpClient chunked = Connect();
  chunked.Send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n300000\r\n");
  chunked.Send(body);
  EXPECT_EQ(chunked.Read().status, 413);

  // A path that takes no body takes not even a byte.
  EXPECT_EQ(Connect().Ask("GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx").status,
            413);
}

TEST_F(HttpServerTest, LargestBodyIsTaken) {
  Serve();
  const std::string body(1 << 20, 'x');
  RawHttpClient client = Connect();
  client.Send(
      absl::StrCat("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: ", body.size(), "\r\n\r\n"));
  client.Send(body);
  EXPECT_EQ(client.Read().body, body);
}

TEST_F(HttpServerTest, LongHeaderIsRefused) {
  Serve();
  const std::string filler(20 << 10, 'x');
  EXPECT_EQ(Connect().Get("/" + filler).status, 431);
  EXPECT_EQ(Connect().Ask("GET / HTTP/1.1\r\nHost: x\r\nX: " + filler + "\r\n\r\n").status, 431);
  std::string many = "GET / HTTP/1.1\r\nHost: x\r\n";
  for (int i = 0; i < 2000; ++i) absl::StrAppend(&many, "X-", i, ": y\r\n");
  EXPECT_EQ(Connect().Ask(many).status, 431);
}

struct BadRequest {
  const char* what;
  const char* bytes;
  int status;
};

class HttpMalformed : public HttpServerTest, public ::testing::WithParamInterface<BadRequest> {};

TEST_P(HttpMalformed, IsRefusedAndEndsTheConnection) {
  Serve();
  RawHttpClient client = Connect();
  // A second request behind it must never be answered.
  client.Send(absl::StrCat(GetParam().bytes, "GET /hello?smuggled HTTP/1.1\r\nHost: x\r\n\r\n"));
  EXPECT_EQ(client.Read().status, GetParam().status);
  EXPECT_TRUE(client.ReadsEnd());
}

INSTANTIATE_TEST_SUITE_P(
    All, HttpMalformed,
    ::testing::Values(
        BadRequest{"Noise", "\x16\x03\x01\x02\r\n\r\n", 400},
        BadRequest{"NoHost", "GET /hello HTTP/1.1\r\n\r\n", 400},
        BadRequest{"TwoHosts", "GET /hello HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
        BadRequest{"BareLineFeed", "GET /hello HTTP/1.1\nHost: x\n\n", 400},
        BadRequest{"TwoEmptyLines", "\r\n\r\nGET /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400},
        BadRequest{"Version", "GET /hello HTTP/2.7\r\nHost: x\r\n\r\n", 505},
        BadRequest{"SpaceBeforeColon",
                   "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n", 400},
        BadRequest{"LengthAndChunked",
                   "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
                   "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                   400},
        BadRequest{"ChunkedAndLength",
                   "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                   "Content-Length: 5\r\n\r\n0\r\n\r\n",
                   400},
        BadRequest{
            "TwoLengths",
            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            400},
        BadRequest{"SignedLength",
                   "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", 400},
        BadRequest{"HugeLength",
                   "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
                   400},
        BadRequest{"UnknownCoding",
                   "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n", 501},
        BadRequest{"CodingOverChunked",
                   "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
                   "0\r\n\r\n",
                   501},
        BadRequest{"ChunkedTwice",
                   "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                   "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                   400},
        BadRequest{"BadChunk",
                   "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
                   400},
        BadRequest{"HugeChunk",
                   "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                   "ffffffffffffffffff\r\n",
                   400},
        BadRequest{"ChunkedInHttp10",
                   "POST /echo HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                   501}),
    [](const auto& param) { return std::string(param.param.what); });

TEST_F(HttpServerTest, ThousandKeepAliveConnectionsAreServed) {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  constexpr size_t kConnections = 1000;
  if (limit.rlim_cur < 2 * kConnections + 64) GTEST_SKIP() << "too few file descriptors";
  Serve();
  std::vector<RawHttpClient> clients;
  for (size_t i = 0; i < kConnections; ++i) clients.push_back(Connect());
  for (int round = 0; round < 3; ++round) {
    for (RawHttpClient& client : clients) {
      ASSERT_TRUE(client.Send("GET /hello?1 HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    for (RawHttpClient& client : clients) ASSERT_EQ(client.Read().body, "hello 1");
  }
  EXPECT_EQ(server_->stats().open_connections, static_cast<int64_t>(kConnections));
  EXPECT_TRUE(server_->Stop(absl::Now() + absl::Seconds(20)));
  for (RawHttpClient& client : clients) ASSERT_TRUE(client.ReadsEnd());
}

TEST_F(HttpServerTest, SlowClientsAreClosedAndHoldNobodyUp) {
  HttpServer::Options options;
  options.read_timeout = absl::Milliseconds(300);
  Serve(options);
  std::vector<RawHttpClient> slow;
  for (int i = 0; i < 50; ++i) {
    slow.push_back(Connect());
    slow.back().Send("GET /hello HTTP/1.1\r\nHo");
  }
  EXPECT_EQ(Connect().Get("/hello").status, 200);
  for (RawHttpClient& client : slow) EXPECT_TRUE(client.ReadsEnd());
}

TEST_F(HttpServerTest, IdleConnectionIsClosed) {
  HttpServer::Options options;
  options.idle_timeout = absl::Milliseconds(200);
  Serve(options);
  RawHttpClient client = Connect();
  EXPECT_EQ(client.Get("/hello").status, 200);
  EXPECT_TRUE(client.ReadsEnd());
}

TEST_F(HttpServerTest, ConnectionsBeyondTheLimitAreToldSo) {
  HttpServer::Options options;
  options.max_connections = 2;
  Serve(options);
  RawHttpClient first = Connect();
  RawHttpClient second = Connect();
  EXPECT_EQ(first.Get("/hello").status, 200);
  EXPECT_EQ(second.Get("/hello").status, 200);
  RawHttpClient third = Connect();
  EXPECT_EQ(third.Get("/hello").status, 503);
  EXPECT_TRUE(third.ReadsEnd());
  EXPECT_EQ(first.Get("/hello").status, 200);
  EXPECT_EQ(server_->stats().refused_connections, 1);
}

TEST_F(HttpServerTest, AnswerMayComeLaterAndFromAnotherThread) {
  Serve();
  RawHttpClient client = Connect();
  client.Send("GET /later HTTP/1.1\r\nHost: x\r\n\r\nGET /hello?next HTTP/1.1\r\nHost: x\r\n\r\n");
  pending_.Answer("at last");
  EXPECT_EQ(client.Read().body, "at last");
  EXPECT_EQ(client.Read().body, "hello next");
}

TEST_F(HttpServerTest, RequestLearnsThatItsClientIsGone) {
  Serve();
  RawHttpClient client = Connect();
  client.Send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  pending_.Await();
  std::shared_ptr<const CancellationFlag> cancellation;
  {
    absl::MutexLock lock(&pending_.mutex);
    cancellation = pending_.request->cancellation;
  }
  EXPECT_FALSE(cancellation->cancelled());
  client.Close();
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (!cancellation->cancelled() && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_TRUE(cancellation->cancelled());
  pending_.Answer("to nobody");
  EXPECT_EQ(Connect().Get("/hello").status, 200);
}

TEST_F(HttpServerTest, ForgottenRequestIsAnswered) {
  Serve();
  EXPECT_EQ(Connect().Get("/forget").status, 500);
}

TEST_F(HttpServerTest, StopLetsABegunRequestEnd) {
  Serve();
  RawHttpClient client = Connect();
  client.Send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  pending_.Await();
  RawHttpClient idle = Connect();
  EXPECT_EQ(idle.Get("/hello").status, 200);
  bool clean = false;
  std::thread stop([&] { clean = server_->Stop(absl::Now() + absl::Seconds(20)); });
  EXPECT_TRUE(idle.ReadsEnd());
  pending_.Answer("done");
  stop.join();
  EXPECT_TRUE(clean);
  const auto response = client.Read();
  EXPECT_EQ(response.body, "done");
  EXPECT_TRUE(response.Has("Connection: close"));
  EXPECT_TRUE(client.ReadsEnd());
}

TEST_F(HttpServerTest, StopClosesWhatIsLeftAndALateAnswerIsHarmless) {
  Serve();
  RawHttpClient client = Connect();
  client.Send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  pending_.Await();
  EXPECT_FALSE(server_->Stop(absl::Now()));
  EXPECT_TRUE(client.ReadsEnd());
  server_.reset();
  pending_.Answer("too late");
}

TEST_F(HttpServerTest, PortInUseIsSaid) {
  Serve();
  HttpServer::Options options;
  options.port = server_->port();
  const auto second = HttpServer::Create(options, HttpRouter());
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(absl::StrCat("127.0.0.1:", options.port, ": Address already in use")));
}

}  // namespace
}  // namespace quiver
