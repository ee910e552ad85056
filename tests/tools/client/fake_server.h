#ifndef QUIVER_TESTS_TOOLS_CLIENT_FAKE_SERVER_H_
#define QUIVER_TESTS_TOOLS_CLIENT_FAKE_SERVER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "tools/client/endpoint.h"

namespace quiver::client {

// A server without gRPC, so that ThreadSanitizer sees all that its threads share with the client.
// It answers on one thread, one message after another: vectors of one element, the text's length.
class FakeServer {
 public:
  struct Options {
    // What an input takes.
    absl::Duration item_time = absl::ZeroDuration();
    std::string fingerprint = "space";
    int max_items_per_request = 8;
    // Called on the server's thread with what it is to say of an input, which it may change; what
    // is not OK fails the whole request, or breaks the stream.
    std::function<absl::Status(const v1::Input&, v1::EmbedResult*)> on_input = nullptr;
  };

  explicit FakeServer(Options options);
  FakeServer() : FakeServer(Options()) {}
  // After everything that an endpoint of it started has ended.
  ~FakeServer();

  std::unique_ptr<Endpoint> NewEndpoint();

  // From now on everything fails as UNAVAILABLE, what is under way too.
  void Kill();
  void Revive();
  // While it stalls, nothing is answered; cancelled requests end.
  void Stall();

  // Inputs answered; requests that came (each message of a stream is one); the largest of them; and
  // requests that were cancelled.
  int items() const { return Read(&Counts::items); }
  int requests() const { return Read(&Counts::requests); }
  int largest_request() const { return Read(&Counts::largest); }
  int cancelled() const { return Read(&Counts::cancelled); }
  // When each request came.
  std::vector<absl::Time> times() const {
    absl::MutexLock lock(&mutex_);
    return times_;
  }
  void AwaitRequests(int count) const;

 private:
  class FakeEndpoint;
  class FakeCall;
  class FakeStream;
  struct Counts {
    int items = 0;
    int requests = 0;
    int largest = 0;
    int cancelled = 0;
  };
  // Called on the server's thread, with whether the server is alive.
  using Task = absl::AnyInvocable<void(bool alive)>;

  int Read(int Counts::*count) const {
    absl::MutexLock lock(&mutex_);
    return counts_.*count;
  }
  void Post(Task task);
  // Runs before anything else, however the server is.
  void PostUrgent(Task task);
  void Run();
  bool Runnable() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_ || !urgent_.empty() || (!stalled_ && !tasks_.empty());
  }
  void CountRequest(int items);
  template <typename Inputs, typename Results>
  absl::Status Answer(const Inputs& inputs, Results* results);

  const Options options_;
  mutable absl::Mutex mutex_;
  std::deque<Task> urgent_ ABSL_GUARDED_BY(mutex_);
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  // Of the server's thread.
  std::vector<std::shared_ptr<FakeStream>> streams_;
  bool alive_ ABSL_GUARDED_BY(mutex_) = true;
  bool stalled_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  Counts counts_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Time> times_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace quiver::client

#endif  // QUIVER_TESTS_TOOLS_CLIENT_FAKE_SERVER_H_
