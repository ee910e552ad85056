// What the two doors cost: closed loops of 64 clients, each with a connection of its own, against
// gRPC and HTTP in front of a fake engine that takes no time. One short text a request, 1024
// dimensions. And what metrics, and a trace of every request, add to gRPC; the collector takes the
// spans over HTTP and forgets them.
//
// Usage: doors [ROUNDS]. Prints requests a second, percentiles of their times, and the processor
// time of one, all rounds together; clients, servers and the collector share the process's cores,
// and their time counts.
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "quiver/v1/embed.grpc.pb.h"
#include "server/embed_service.h"
#include "server/grpc_server.h"
#include "server/http_server.h"
#include "server/metrics.h"
#include "server/openai_routes.h"
#include "server/otlp_client.h"
#include "server/otlp_options.h"
#include "server/request_tracer.h"
#include "server/span_exporter.h"
#include "tests/server/raw_http_client.h"
#include "tools/bench/fake_engine.h"

namespace quiver {
namespace {

constexpr int kClients = 64;
constexpr int kIdleConnections = 1000;
constexpr int kDimensions = 1024;
constexpr absl::Duration kRunTime = absl::Seconds(3);
constexpr char kService[] = "quiver.v1.EmbedService";
constexpr char kText[] = "how do I reset my password?";

// One request of one client; false if it fails.
using Ask = std::function<bool()>;

// Of all threads of this process.
double CpuSeconds() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return absl::ToDoubleSeconds(absl::DurationFromTimeval(usage.ru_utime) +
                               absl::DurationFromTimeval(usage.ru_stime));
}

struct Totals {
  double seconds = 0;
  double cpu_seconds = 0;
  std::vector<double> ms;

  void Print(const char* name) {
    std::sort(ms.begin(), ms.end());
    const auto requests = static_cast<double>(ms.size());
    std::printf("%-32s %8.0f requests/s   p50 %6.2f ms   p99 %6.2f ms   %5.1f us of a core\n", name,
                requests / seconds, ms[ms.size() / 2], ms[ms.size() * 99 / 100],
                cpu_seconds / requests * 1e6);
  }
};

void Run(const std::function<Ask()>& connect, Totals* totals) {
  std::atomic<bool> stop{false};
  std::vector<std::vector<double>> times(kClients);
  std::vector<std::thread> threads;
  const absl::Time begin = absl::Now();
  const double cpu_begin = CpuSeconds();
  for (int i = 0; i < kClients; ++i) {
    threads.emplace_back([&, i] {
      const Ask ask = connect();
      while (!stop) {
        const absl::Time start = absl::Now();
        if (!ask()) std::exit(1);
        times[static_cast<size_t>(i)].push_back(absl::ToDoubleMilliseconds(absl::Now() - start));
      }
    });
  }
  absl::SleepFor(kRunTime);
  stop = true;
  for (std::thread& thread : threads) thread.join();
  totals->seconds += absl::ToDoubleSeconds(absl::Now() - begin);
  totals->cpu_seconds += CpuSeconds() - cpu_begin;
  for (const auto& part : times) totals->ms.insert(totals->ms.end(), part.begin(), part.end());
}

Ask HttpClient(int port, const std::string& format) {
  const std::string body = absl::StrCat(R"({"model":"fake-model","input":")", kText,
                                        R"(","encoding_format":")", format, "\"}");
  const std::string request =
      absl::StrCat("POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: ",
                   "application/json\r\nContent-Length: ", body.size(), "\r\n\r\n", body);
  auto client = std::make_shared<RawHttpClient>(port);
  return [client, request] { return client->Ask(request).status == 200; };
}

Ask GrpcClient(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto channel = grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  std::shared_ptr<v1::EmbedService::Stub> stub = v1::EmbedService::NewStub(channel);
  return [stub] {
    grpc::ClientContext context;
    v1::EmbedRequest request;
    request.set_model("fake-model");
    request.add_inputs()->set_text(kText);
    v1::EmbedResponse response;
    return stub->Embed(&context, request, &response).ok() && response.usage().succeeded() == 1;
  };
}

class NoObserver : public RequestObserver {
 public:
  void OnRequestStart(Rpc) override {}
  void OnItems(Rpc, Lane, const ItemCounts&) override {}
  void OnRequestEnd(const RequestReport&) override {}
};

// Takes spans at once, for what making them costs alone.
class NoSender : public SpanSender {
 public:
  Result Send(const std::string&, const Deadline&) override { return {}; }
};

// The processor time that a request's trace takes beside the request, sending it left out.
void PrintTraceAlone(RequestObserver* next, Logger* logger) {
  constexpr int kRequests = 200'000;
  SpanExporter exporter({.max_queued_spans = 4 * kRequests}, OtlpEncoder({}),
                        std::make_unique<NoSender>(), logger);
  RequestTracer tracer(1, &exporter, next);
  RequestReport report;
  report.peer = "ipv4:127.0.0.1:50000";
  report.model = "fake-model";
  report.timeline.tokenize_began = report.timeline.tokenize_ended = absl::Now();
  report.timeline.batches.emplace_back();
  const double begin = CpuSeconds();
  for (int i = 0; i < kRequests; ++i) {
    report.trace = tracer.StartTrace({});
    tracer.OnRequestEnd(report);
  }
  exporter.Stop(absl::Now() + absl::Seconds(60));
  std::printf("a trace alone: %.1f us of a core, %lld spans\n",
              (CpuSeconds() - begin) / kRequests * 1e6,
              static_cast<long long>(exporter.stats().exported));
}

int Main(int rounds) {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);

  FakeEngine engine(kDimensions);
  EmbedService service({}, &engine.model, &engine.calls, nullptr);
  auto grpc_server = GrpcServer::Create({.port = 0}, &service, kService);
  HttpRouter router;
  AddOpenAiRoutes({}, &engine.model, &engine.calls, nullptr, &router);
  router.Add("POST", "/v1/traces", {int64_t{64} << 20, [](HttpRequest, HttpResponder responder) {
                                      responder.Send({.body = "{}"});
                                    }});
  auto http = HttpServer::Create({}, std::move(router));
  if (!grpc_server.ok() || !http.ok()) return 1;
  (*http)->Start();
  const int port = (*http)->port();

  Metrics metrics(nullptr);
  EmbedService counted_service({}, &engine.model, &engine.calls, metrics.request_observer());
  auto counted = GrpcServer::Create({.port = 0}, &counted_service, kService);
  Logger logger({});
  auto otlp = ReadOtlpOptions(absl::StrCat("http://", (*http)->address()));
  if (!otlp.ok() || !counted.ok()) return 1;
  auto client = OtlpClient::Create(**otlp);
  if (!client.ok()) return 1;
  SpanExporter exporter({}, OtlpEncoder({.resource = (*otlp)->resource}), *std::move(client),
                        &logger);
  RequestTracer tracer(1, &exporter, metrics.request_observer());
  EmbedService traced_service({}, &engine.model, &engine.calls, &tracer);
  auto traced = GrpcServer::Create({.port = 0}, &traced_service, kService);
  if (!traced.ok()) return 1;

  Totals by_grpc, by_counted, by_traced, by_base64, by_floats, beside_idle;
  for (int round = 0; round < rounds; ++round) {
    Run([&] { return GrpcClient((*grpc_server)->address()); }, &by_grpc);
    // In turns, as what runs later may be slower for it.
    for (int i = 0; i < 2; ++i) {
      const bool trace = (round + i) % 2 != 0;
      Run([&] { return GrpcClient((trace ? *traced : *counted)->address()); },
          trace ? &by_traced : &by_counted);
    }
    Run([&] { return HttpClient(port, "base64"); }, &by_base64);
    {
      std::vector<RawHttpClient> idle;
      for (int i = 0; i < kIdleConnections; ++i) {
        idle.emplace_back(port);
        if (idle.back().Get("/v1/models").status != 200) return 1;
      }
      Run([&] { return HttpClient(port, "base64"); }, &beside_idle);
    }
    Run([&] { return HttpClient(port, "float"); }, &by_floats);
  }
  by_grpc.Print("gRPC");
  by_counted.Print("gRPC, metrics");
  by_traced.Print("gRPC, metrics, all traced");
  by_base64.Print("HTTP, base64");
  beside_idle.Print("HTTP, base64, 1000 idle beside");
  by_floats.Print("HTTP, float");

  exporter.Stop(absl::Now() + absl::Seconds(10));
  const SpanExporter::Stats spans = exporter.stats();
  std::printf("spans exported, failed, dropped:  %lld %lld %lld\n",
              static_cast<long long>(spans.exported), static_cast<long long>(spans.failed),
              static_cast<long long>(spans.dropped));

  NoObserver no_observer;
  PrintTraceAlone(&no_observer, &logger);

  engine.state.Drain();
  engine.embedder->Drain(absl::Now() + absl::Seconds(10));
  for (auto* server : {&*grpc_server, &*counted, &*traced}) (*server)->Shutdown(absl::Seconds(1));
  (*http)->Stop(absl::Now() + absl::Seconds(1));
  return 0;
}

}  // namespace
}  // namespace quiver

int main(int argc, char** argv) { return quiver::Main(argc > 1 ? std::atoi(argv[1]) : 3); }
