#ifndef QUIVER_TOOLS_CLIENT_SERVER_SET_H_
#define QUIVER_TOOLS_CLIENT_SERVER_SET_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "quiver/client.h"
#include "tools/client/endpoint.h"

namespace quiver::client {

struct Server {
  Address address;
  std::unique_ptr<Endpoint> endpoint;
  // Of this client, sent and not answered.
  int64_t outstanding_tokens = 0;
  // UNAVAILABLE since the last answer, and until when it is better to ask others.
  int failures = 0;
  absl::Time down_until = absl::InfinitePast();
};

// The wait after the failure number `failures`, from 1: what the server asked for, or one that
// doubles.
absl::Duration RetryWait(const RetryPolicy& policy, int failures, const absl::Status& status,
                         absl::BitGen* random);

// Servers, and which of them a request goes to: to the one with the fewest tokens to answer. It
// needs no word of their speed: a slow server's tokens stay longer, so that it is given fewer.
// Turns (round robin) would give each the same, and the slowest decides how long all wait. For the
// event loop's thread.
class ServerSet {
 public:
  // When a request that is tried again may go where; InfinitePast for a server without an entry.
  using NotBefore = absl::flat_hash_map<const Server*, absl::Time>;
  struct Choice {
    std::shared_ptr<Server> server;
    absl::Time when;
  };

  ServerSet(RetryPolicy policy, EndpointFactory factory)
      : policy_(policy), factory_(std::move(factory)) {}

  // Servers that are still there are kept, with their connections.
  void Update(const std::vector<Address>& addresses);

  // Where to send a request for the first time, at once: a server that is up, if one is.
  std::shared_ptr<Server> First();
  // Where to send it again: the server that is ready soonest.
  Choice Next(const NotBefore& not_before, absl::Time now);
  // Another one than `first` that is up; null if there is none.
  std::shared_ptr<Server> Hedge(const Server* first, absl::Time now);

  const std::vector<std::shared_ptr<Server>>& all() const { return servers_; }

  void Answered(Server* server);
  // Returns when `server` may be tried again, for a request that failed there `failures` times.
  absl::Time Failed(Server* server, int failures, const absl::Status& status, absl::Time now);

 private:
  // The server with the smallest value of `ready`, then the fewest tokens; equals take turns. Null
  // if none has a value that is not InfiniteFuture.
  Choice Least(const std::function<absl::Time(const Server&)>& ready);

  const RetryPolicy policy_;
  const EndpointFactory factory_;
  std::vector<std::shared_ptr<Server>> servers_;
  size_t turn_ = 0;
  absl::BitGen random_;
};

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_SERVER_SET_H_
