// EmbedService over a real port with a fake engine behind it.
#ifndef QUIVER_TESTS_SERVER_SERVICE_FIXTURE_H_
#define QUIVER_TESTS_SERVER_SERVICE_FIXTURE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/embedder.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "quiver/v1/embed.grpc.pb.h"
#include "server/embed_service.h"
#include "server/grpc_server.h"
#include "tests/testing/fake_embedder.h"

namespace quiver {

// Holds up the device while closed.
class Gate {
 public:
  void Close() {
    absl::MutexLock lock(&mutex_);
    open_ = false;
  }
  void Open() {
    absl::MutexLock lock(&mutex_);
    open_ = true;
  }
  // Returns when the gate is open.
  void Pass() {
    absl::MutexLock lock(&mutex_);
    ++waiting_;
    mutex_.Await(absl::Condition(&open_));
    --waiting_;
  }
  // Returns when somebody is held up.
  void AwaitWaiter() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](int* waiting) { return *waiting > 0; }, &waiting_));
  }

 private:
  absl::Mutex mutex_;
  bool open_ ABSL_GUARDED_BY(mutex_) = true;
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Keeps every report.
class RecordingObserver : public RequestObserver {
 public:
  void OnRequestStart(Rpc) override {
    absl::MutexLock lock(&mutex_);
    ++starts_;
  }
  void OnItems(Rpc, Lane, const ItemCounts& items) override {
    absl::MutexLock lock(&mutex_);
    items_ += items.succeeded + items.failed;
  }
  void OnRequestEnd(const RequestReport& report) override {
    absl::MutexLock lock(&mutex_);
    reports_.push_back(report);
  }
  // Answered, by requests that have ended or not.
  int64_t items() const {
    absl::MutexLock lock(&mutex_);
    return items_;
  }
  int starts() const {
    absl::MutexLock lock(&mutex_);
    return starts_;
  }
  // Waits until there are so many of `rpc`.
  std::vector<RequestReport> Reports(Rpc rpc, size_t count) const {
    while (true) {
      std::vector<RequestReport> found;
      {
        absl::MutexLock lock(&mutex_);
        for (const RequestReport& report : reports_) {
          if (report.rpc == rpc) found.push_back(report);
        }
      }
      if (found.size() >= count) return found;
      absl::SleepFor(absl::Milliseconds(1));
    }
  }

 private:
  mutable absl::Mutex mutex_;
  int starts_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t items_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<RequestReport> reports_ ABSL_GUARDED_BY(mutex_);
};

class ServiceTest : public ::testing::Test {
 protected:
  struct Setup {
    Embedder::Options embedder = {};
    FakeBackend::Options backend = {};
    EmbedService::Options service = {.server_version = "1.2.3"};
    EmbedCalls::Options calls = {.tokenizer = {.threads = 2}};
    // Whether the model is there from the start.
    bool serve = true;
  };

  void Start() { Start(Setup()); }
  void Start(Setup setup);
  ~ServiceTest() override;

  std::shared_ptr<grpc::Channel> NewChannel() const;

  // A text request.
  static v1::EmbedRequest Request(const std::vector<std::string>& texts);

  // Blocks.
  grpc::Status Embed(const v1::EmbedRequest& request, v1::EmbedResponse* response) {
    grpc::ClientContext context;
    return stub_->Embed(&context, request, response);
  }

  // Frames of a connection arrive in order: with the answers to some calls the server also has what
  // was sent before them, such as a cancellation.
  void AwaitServerCaughtUp();

  Gate gate_;
  RecordingObserver observer_;
  ServingState state_;
  std::unique_ptr<Embedder> embedder_;
  FakeBackend* backend_ = nullptr;
  std::unique_ptr<ServedModel> model_;
  std::unique_ptr<EmbedCalls> calls_;
  std::unique_ptr<EmbedService> service_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::EmbedService::Stub> stub_;
};

// The field of the first google.rpc.BadRequest violation in an error; empty if there is none.
std::string ViolatedField(const google::rpc::Status& status);
std::string ViolatedField(const grpc::Status& status);
// The wait that google.rpc.RetryInfo asks for; zero if there is none.
absl::Duration RetryAfter(const grpc::Status& status);

// That the result has the vector of `text`.
void ExpectVector(const v1::EmbedResult& result, const std::string& text);
// What the fake engine gives for `text` of an Embed with default options.
std::string VectorOf(const std::string& text, const OutputSpec& output = {.dimensions = 32});

}  // namespace quiver

#endif  // QUIVER_TESTS_SERVER_SERVICE_FIXTURE_H_
