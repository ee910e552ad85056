#include "tools/client/resolver.h"

#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tools/client/rpc_status.h"

namespace quiver::client {
namespace {

// What gRPC is left to look up, as one server.
constexpr const char* kOwnSchemes[] = {"unix:", "unix-abstract:", "ipv4:", "ipv6:", "dns:"};

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

}  // namespace

absl::StatusOr<std::vector<Address>> LookUp(const std::string& server) {
  for (const char* scheme : kOwnSchemes) {
    if (absl::StartsWith(server, scheme)) return std::vector<Address>{{server, ""}};
  }
  const size_t colon = server.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(server.substr(colon + 1), &port) || port < 1 || port > 65535) {
    return FieldError("servers", absl::StrCat("must be HOST:PORT each; one is '", server, "'"));
  }
  std::string host = server.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  // One machine, whose server may listen at either family's address: gRPC tries both.
  if (host == "localhost") return std::vector<Address>{{server, host}};
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(absl::StrCat(server, ": ", gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, FreeAddresses> list(found);
  std::vector<Address> addresses;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    char text[NI_MAXHOST];
    if (getnameinfo(entry->ai_addr, entry->ai_addrlen, text, sizeof(text), nullptr, 0,
                    NI_NUMERICHOST) != 0) {
      continue;
    }
    // The first is of the family that reaches the host; another family's are the same machines.
    if (entry->ai_family != found->ai_family) continue;
    const bool v6 = entry->ai_family == AF_INET6;
    addresses.push_back(
        {v6 ? absl::StrCat("[", text, "]:", port) : absl::StrCat(text, ":", port), host});
  }
  return addresses;
}

absl::StatusOr<std::vector<Address>> LookUpAll(const std::vector<std::string>& servers,
                                               const Lookup& lookup) {
  std::vector<Address> all;
  for (const std::string& server : servers) {
    absl::StatusOr<std::vector<Address>> addresses = lookup(server);
    if (!addresses.ok()) return addresses.status();
    for (Address& address : *addresses) {
      if (std::find(all.begin(), all.end(), address) == all.end()) {
        all.push_back(std::move(address));
      }
    }
  }
  if (all.empty()) return absl::UnavailableError("no server has an address");
  return all;
}

Resolver::Resolver(std::vector<std::string> servers, Lookup lookup, absl::Duration interval,
                   OnAddresses on_addresses)
    : servers_(std::move(servers)),
      lookup_(std::move(lookup)),
      interval_(interval),
      on_addresses_(std::move(on_addresses)),
      thread_([this] { Run(); }) {}

Resolver::~Resolver() {
  {
    absl::MutexLock lock(&mutex_);
    stop_ = true;
  }
  thread_.join();
}

void Resolver::Run() {
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stop_), interval_)) return;
    }
    absl::StatusOr<std::vector<Address>> addresses = LookUpAll(servers_, lookup_);
    if (addresses.ok()) on_addresses_(*std::move(addresses));
  }
}

}  // namespace quiver::client
