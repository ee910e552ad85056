#ifndef QUIVER_TOOLS_CLIENT_RETRIED_CALL_H_
#define QUIVER_TOOLS_CLIENT_RETRIED_CALL_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tools/client/core.h"
#include "tools/client/endpoint.h"
#include "tools/client/server_set.h"

namespace quiver::client {

// What is known of the tries of one piece of work, over all its requests.
struct Tries {
  int count = 0;
  // Why the last one failed.
  absl::Status last;
  ServerSet::NotBefore not_before;
};

// One request until it has an answer: tried, hedged, tried again. For the loop's thread.
class RetriedCall : public std::enable_shared_from_this<RetriedCall> {
 public:
  // The server is whose answer it is, null for an error of the client's own.
  using Done = absl::AnyInvocable<void(absl::StatusOr<UnaryReply>, std::shared_ptr<Server>)>;

  // `core` and `tries` must outlive the call of `done`, which comes exactly once, perhaps before
  // Start returns, unless Cancel comes first.
  RetriedCall(Core* core, std::shared_ptr<const UnaryRequest> request, int64_t tokens,
              absl::Time deadline, Tries* tries, Done done);

  void Start();
  void Cancel();

 private:
  struct Attempt {
    std::shared_ptr<Server> server;
    // Null once it has ended.
    std::shared_ptr<UnaryCall> call;
  };

  // Tries again when and where it may, or gives up.
  void Again();
  void Send(std::shared_ptr<Server> server);
  void Hedge();
  void OnAnswer(size_t attempt, absl::StatusOr<UnaryReply> reply);
  void Finish(absl::StatusOr<UnaryReply> reply, std::shared_ptr<Server> server);
  // No callback of this is due any more that does anything.
  void Stop();

  Core& core_;
  const std::shared_ptr<const UnaryRequest> request_;
  const int64_t tokens_;
  const absl::Time deadline_;
  Tries& tries_;
  Done done_;
  bool finished_ = false;
  std::vector<Attempt> attempts_;
  int open_ = 0;
  EventLoop::Timer timer_;
};

// Sees to it that Core::info() is there, then calls `done`, perhaps before it returns: null then.
std::shared_ptr<RetriedCall> FetchInfo(Core* core, absl::Time deadline, Tries* tries,
                                       absl::AnyInvocable<void(const absl::Status&)> done);

// An UNAVAILABLE names the server.
absl::Status Named(const Server& server, const absl::Status& status);

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_RETRIED_CALL_H_
