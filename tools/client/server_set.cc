#include "tools/client/server_set.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "absl/time/clock.h"
#include "tools/client/rpc_status.h"

namespace quiver::client {

absl::Duration RetryWait(const RetryPolicy& policy, int failures, const absl::Status& status,
                         absl::BitGen* random) {
  // Not earlier than asked for.
  if (const absl::Duration asked = RetryDelay(status); asked > absl::ZeroDuration()) {
    return asked * absl::Uniform(*random, 1.0, 1.25);
  }
  const absl::Duration wait = policy.first_wait * std::exp2(std::clamp(failures - 1, 0, 30));
  return std::min(wait, policy.max_wait) * absl::Uniform(*random, 0.5, 1.0);
}

void ServerSet::Update(const std::vector<Address>& addresses) {
  std::vector<std::shared_ptr<Server>> servers;
  for (const Address& address : addresses) {
    const auto known = std::find_if(servers_.begin(), servers_.end(),
                                    [&](const auto& server) { return server->address == address; });
    if (known != servers_.end()) {
      servers.push_back(*known);
      continue;
    }
    auto server = std::make_shared<Server>();
    server->address = address;
    server->endpoint = factory_(address);
    servers.push_back(std::move(server));
  }
  servers_ = std::move(servers);
}

ServerSet::Choice ServerSet::Least(const std::function<absl::Time(const Server&)>& ready) {
  Choice best = {nullptr, absl::InfiniteFuture()};
  ++turn_;
  for (size_t i = 0; i < servers_.size(); ++i) {
    const std::shared_ptr<Server>& server = servers_[(turn_ + i) % servers_.size()];
    const absl::Time when = ready(*server);
    if (when == absl::InfiniteFuture()) continue;
    if (best.server == nullptr || std::tie(when, server->outstanding_tokens) <
                                      std::tie(best.when, best.server->outstanding_tokens)) {
      best = {server, when};
    }
  }
  return best;
}

std::shared_ptr<Server> ServerSet::First() {
  const absl::Time now = absl::Now();
  return Least([&](const Server& server) { return std::max(now, server.down_until); }).server;
}

ServerSet::Choice ServerSet::Next(const NotBefore& not_before, absl::Time now) {
  return Least([&](const Server& server) {
    const auto found = not_before.find(&server);
    const absl::Time own = found == not_before.end() ? absl::InfinitePast() : found->second;
    return std::max({now, server.down_until, own});
  });
}

std::shared_ptr<Server> ServerSet::Hedge(const Server* first, absl::Time now) {
  return Least([&](const Server& server) {
           return &server == first || server.down_until > now ? absl::InfiniteFuture() : now;
         })
      .server;
}

void ServerSet::Answered(Server* server) {
  server->failures = 0;
  server->down_until = absl::InfinitePast();
}

absl::Time ServerSet::Failed(Server* server, int failures, const absl::Status& status,
                             absl::Time now) {
  if (absl::IsUnavailable(status)) {
    // Requests that fail together are one failure.
    if (now >= server->down_until) {
      ++server->failures;
      server->down_until = now + RetryWait(policy_, server->failures, status, &random_);
    }
    return server->down_until;
  }
  return now + RetryWait(policy_, failures, status, &random_);
}

}  // namespace quiver::client
