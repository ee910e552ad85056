// What one bulk stream costs and harms, in front of a fake engine that takes no time. The server is
// a process of its own, so that its memory is told from the client's; both share the machine.
//
//   stream_bench rate [ITEMS]
//     How fast ITEMS (1,000,000) short texts become vectors of 384 float16 elements over one
//     stream, 64 a message, and how both sides' memory goes. Exits with 1 unless each has its
//     result once.
//   stream_bench stalled [SECONDS]
//     What a stream that is written to and not read for SECONDS (60) takes from another stream and
//     from unary calls, and of the server's memory. Exits with 1 if either is more than it may be.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "quiver/v1/embed.grpc.pb.h"
#include "server/embed_service.h"
#include "server/grpc_server.h"
#include "tools/bench/fake_engine.h"

namespace quiver {
namespace {

constexpr int kDimensions = 384;
constexpr int kItemsPerMessage = 64;
constexpr int kUnaryClients = 4;
// Of an input with its bookkeeping.
constexpr int kBytesOfItem = 512;
constexpr double kTransportMib = 16;
constexpr char kService[] = "quiver.v1.EmbedService";
constexpr char kText[] = "a short synthetic document, number ";

using Stream = grpc::ClientReaderWriter<v1::EmbedStreamRequest, v1::EmbedStreamResponse>;

double ResidentMib(pid_t pid) {
  std::ifstream in(absl::StrCat("/proc/", pid, "/statm"));
  int64_t pages = 0;
  in >> pages >> pages;
  return static_cast<double>(pages * sysconf(_SC_PAGESIZE)) / (1 << 20);
}

// Runs until it is killed; writes its address to `out`.
int Serve(int out) {
  FakeEngine engine(kDimensions);
  EmbedService service({}, &engine.model, &engine.calls, nullptr);
  auto server = GrpcServer::Create({.port = 0}, &service, kService);
  if (!server.ok()) return 1;
  const std::string address = (*server)->address();
  if (write(out, address.data(), address.size()) < 0) return 1;
  close(out);
  for (;;) pause();
}

// A server in a child, which ends with this object or with the parent.
class Server {
 public:
  Server() {
    std::array<int, 2> ends;
    if (pipe(ends.data()) != 0) std::exit(1);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      close(ends[0]);
      _exit(Serve(ends[1]));
    }
    close(ends[1]);
    std::array<char, 256> text;
    for (ssize_t n; (n = read(ends[0], text.data(), text.size())) > 0;) {
      address_.append(text.data(), static_cast<size_t>(n));
    }
    close(ends[0]);
  }
  ~Server() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  double resident_mib() const { return ResidentMib(pid_); }
  std::unique_ptr<v1::EmbedService::Stub> Connect() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return v1::EmbedService::NewStub(
        grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments));
  }

 private:
  pid_t pid_ = 0;
  std::string address_;
};

v1::EmbedStreamRequest Message(int64_t first, int64_t count) {
  v1::EmbedStreamRequest message;
  if (first == 0) {
    message.mutable_start()->mutable_options()->set_output_type(v1::OUTPUT_TYPE_FLOAT16);
  }
  for (int64_t i = first; i < first + count; ++i) {
    v1::Input* input = message.add_inputs();
    input->set_id(absl::StrCat(i));
    input->set_text(absl::StrCat(kText, i));
  }
  return message;
}

// Writes until `items` are written or `stop`.
void WriteItems(Stream* stream, int64_t items, const std::atomic<bool>& stop) {
  for (int64_t first = 0; first < items && !stop; first += kItemsPerMessage) {
    const int64_t count = std::min<int64_t>(kItemsPerMessage, items - first);
    if (!stream->Write(Message(first, count))) return;
  }
  stream->WritesDone();
}

int Rate(int64_t items) {
  const Server server;
  const auto stub = server.Connect();
  grpc::ClientContext context;
  const auto stream = stub->EmbedStream(&context);
  const std::atomic<bool> stop{false};
  const absl::Time begin = absl::Now();
  std::thread writer([&] { WriteItems(stream.get(), items, stop); });
  std::vector<bool> seen(static_cast<size_t>(items));
  int64_t results = 0;
  int64_t wrong = 0;
  int64_t shown = 0;
  v1::EmbedStreamResponse response;
  v1::StreamSummary summary;
  std::printf("%10s %10s %14s %14s\n", "items", "items/s", "server, MiB", "client, MiB");
  while (stream->Read(&response)) {
    for (const v1::EmbedResult& result : response.results()) {
      int64_t id = -1;
      const bool is_right = absl::SimpleAtoi(result.id(), &id) && id >= 0 && id < items &&
                            !seen[static_cast<size_t>(id)] && result.has_embedding() &&
                            result.embedding().data().size() == 2 * kDimensions;
      if (is_right) seen[static_cast<size_t>(id)] = true;
      wrong += is_right ? 0 : 1;
      ++results;
    }
    if (response.has_summary()) summary = response.summary();
    if (results - shown < items / 10 && results < items) continue;
    shown = results;
    std::printf("%10lld %10.0f %14.1f %14.1f\n", static_cast<long long>(results),
                static_cast<double>(results) / absl::ToDoubleSeconds(absl::Now() - begin),
                server.resident_mib(), ResidentMib(getpid()));
  }
  writer.join();
  const grpc::Status status = stream->Finish();
  std::printf(
      "%lld results, %lld of them wrong, twice or unknown; summary: %llu items, %u vectors; %s\n",
      static_cast<long long>(results), static_cast<long long>(wrong),
      static_cast<unsigned long long>(summary.items()), summary.usage().succeeded(),
      status.ok() ? "OK" : status.error_message().c_str());
  return status.ok() && results == items && wrong == 0 ? 0 : 1;
}

// One stream and some unary callers that never rest, and what they have done.
class Load {
 public:
  explicit Load(const Server& server) {
    threads_.emplace_back([this, stub = std::shared_ptr(server.Connect())] {
      grpc::ClientContext context;
      const auto stream = stub->EmbedStream(&context);
      std::thread writer(
          [&] { WriteItems(stream.get(), std::numeric_limits<int64_t>::max() / 2, stop_); });
      v1::EmbedStreamResponse response;
      while (stream->Read(&response)) items += response.results_size();
      writer.join();
      stream->Finish();
    });
    for (int i = 0; i < kUnaryClients; ++i) {
      threads_.emplace_back([this, stub = std::shared_ptr(server.Connect())] {
        while (!stop_) {
          grpc::ClientContext context;
          v1::EmbedRequest request;
          request.add_inputs()->set_text(kText);
          v1::EmbedResponse response;
          if (!stub->Embed(&context, request, &response).ok()) std::exit(1);
          ++calls;
        }
      });
    }
  }
  ~Load() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  std::atomic<int64_t> items{0};
  std::atomic<int64_t> calls{0};

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

struct Rates {
  double items = 0;
  double calls = 0;
};

Rates Measure(const Load& load, absl::Duration time) {
  const absl::Time begin = absl::Now();
  const int64_t items = load.items;
  const int64_t calls = load.calls;
  absl::SleepFor(time);
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  return {static_cast<double>(load.items - items) / seconds,
          static_cast<double>(load.calls - calls) / seconds};
}

int Stalled(absl::Duration stall) {
  const Server server;
  const Load load(server);
  Measure(load, absl::Seconds(3));
  const absl::Duration beside = std::min(stall, absl::Seconds(20));
  const Rates before = Measure(load, beside);
  const double mib_before = server.resident_mib();

  const auto stub = server.Connect();
  grpc::ClientContext context;
  const auto stream = stub->EmbedStream(&context);
  std::atomic<int64_t> written{0};
  std::thread writer([&] {
    for (int64_t first = 0; stream->Write(Message(first, kItemsPerMessage));) {
      written = first += kItemsPerMessage;
    }
  });
  const Rates during = Measure(load, stall);
  const double grown = server.resident_mib() - mib_before;
  // What was written while nothing was read, of which all has a result now.
  const int64_t taken = written;
  v1::EmbedStreamResponse response;
  int64_t results = 0;
  uint64_t most_items = 0;
  while (results < taken && stream->Read(&response)) {
    if (response.has_limits()) most_items = response.limits().max_items_in_flight();
    results += response.results_size();
  }
  context.TryCancel();
  writer.join();
  stream->Finish();
  const Rates after = Measure(load, beside);

  const Rates rest = {(before.items + after.items) / 2, (before.calls + after.calls) / 2};
  std::printf("%-22s %12s %12s\n", "", "items/s", "calls/s");
  std::printf("%-22s %12.0f %12.0f\n", "before", before.items, before.calls);
  std::printf("%-22s %12.0f %12.0f\n", "beside a stalled one", during.items, during.calls);
  std::printf("%-22s %12.0f %12.0f\n", "after", after.items, after.calls);
  std::printf("%-22s %12.3f %12.3f\n", "kept", during.items / rest.items,
              during.calls / rest.calls);
  // Its inputs, their vectors, and what the transport has under way.
  const double bound =
      static_cast<double>(most_items) * (kBytesOfItem + 2 * kDimensions) / (1 << 20) +
      kTransportMib;
  std::printf(
      "the stalled stream took %lld items (limit %llu); read, it gave their results: %s\n"
      "the server grew by %.1f MiB (bound %.1f)\n",
      static_cast<long long>(taken), static_cast<unsigned long long>(most_items),
      results >= taken ? "yes" : "no", grown, bound);
  const bool is_kept = during.items >= 0.95 * rest.items && during.calls >= 0.95 * rest.calls;
  return results >= taken && grown <= bound && is_kept ? 0 : 1;
}

int Main(const std::string& what, int64_t number) {
  if (what == "rate") return Rate(number > 0 ? number : 1'000'000);
  if (what == "stalled") return Stalled(absl::Seconds(number > 0 ? number : 60));
  std::fprintf(stderr, "usage: stream_bench rate [ITEMS] | stream_bench stalled [SECONDS]\n");
  return 2;
}

}  // namespace
}  // namespace quiver

int main(int argc, char** argv) {
  return quiver::Main(argc > 1 ? argv[1] : "", argc > 2 ? std::atoll(argv[2]) : 0);
}
