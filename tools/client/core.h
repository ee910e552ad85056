#ifndef QUIVER_TOOLS_CLIENT_CORE_H_
#define QUIVER_TOOLS_CLIENT_CORE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "quiver/client.h"
#include "quiver/v1/embed.pb.h"
#include "tools/client/endpoint.h"
#include "tools/client/event_loop.h"
#include "tools/client/resolver.h"
#include "tools/client/server_set.h"

namespace quiver::client {

// What all calls of a client share. Everything but the constructor, Shutdown, loop() and Watch is
// for the loop's thread.
class Core {
 public:
  // Options that passed their checks, and the servers' first addresses.
  Core(ClientOptions options, EndpointFactory factory, Lookup lookup,
       const std::vector<Address>& addresses);

  // Cancels what is under way and returns when all of it has ended. Last; not from the loop.
  void Shutdown();

  EventLoop& loop() { return loop_; }
  const ClientOptions& options() const { return options_; }
  ServerSet& servers() { return servers_; }

  // What the first server that was asked says; its limits hold for all.
  const std::optional<v1::ModelInfo>& info() const { return info_; }
  void set_info(v1::ModelInfo info) { info_ = std::move(info); }

  // As Endpoint's, with callbacks on the loop after the method has returned; `tokens` count as
  // outstanding at the server until the end.
  std::shared_ptr<UnaryCall> Start(const std::shared_ptr<Server>& server,
                                   std::shared_ptr<const UnaryRequest> request, absl::Time deadline,
                                   int64_t tokens, UnaryDone done);
  StreamCall* StartStream(const std::shared_ptr<Server>& server, absl::Time deadline,
                          StreamEvents events);

  // Something under way, until End(): Shutdown calls `cancel`, on the loop, and waits for it.
  uint64_t Begin(std::function<void()> cancel);
  void End(uint64_t id);

  // `cancel` is called on the loop when `cancellation` is or was cancelled, until the returned
  // function is called.
  std::function<void()> Watch(const Cancellation& cancellation, std::function<void()> cancel);

 private:
  void Opened();
  void Closed();
  bool Idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return under_way_ == 0; }

  const ClientOptions options_;
  ServerSet servers_;
  std::optional<v1::ModelInfo> info_;
  std::map<uint64_t, std::function<void()>> cancels_;
  uint64_t next_id_ = 0;
  bool shut_down_ = false;
  absl::Mutex mutex_;
  // RPCs and whatever Begin was called for.
  int under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  // After everything that its tasks use.
  EventLoop loop_;
  // Posts to the loop.
  std::unique_ptr<Resolver> resolver_;
};

// `options` checked: INVALID_ARGUMENT names the field; UNAVAILABLE if no server has an address.
absl::StatusOr<std::shared_ptr<Core>> MakeCore(ClientOptions options, EndpointFactory factory,
                                               Lookup lookup);

// Blocking for a result of the loop. Shared by both sides, so that neither goes too early.
template <typename T>
class Promise {
 public:
  void Set(T value) {
    absl::MutexLock lock(&mutex_);
    value_.emplace(std::move(value));
  }
  T Take() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](std::optional<T>* value) { return value->has_value(); }, &value_));
    return *std::move(value_);
  }

 private:
  absl::Mutex mutex_;
  std::optional<T> value_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_CORE_H_
