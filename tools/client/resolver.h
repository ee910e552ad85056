#ifndef QUIVER_TOOLS_CLIENT_RESOLVER_H_
#define QUIVER_TOOLS_CLIENT_RESOLVER_H_

#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "tools/client/endpoint.h"

namespace quiver::client {

// The addresses of one HOST:PORT.
using Lookup = std::function<absl::StatusOr<std::vector<Address>>(const std::string&)>;

// With the system's resolver: one address for each of the host's; a target with a scheme of
// gRPC's (unix:...) is its own address. INVALID_ARGUMENT for what is no HOST:PORT, UNAVAILABLE for
// a name without an address.
absl::StatusOr<std::vector<Address>> LookUp(const std::string& server);

// Looks servers up again and again, on a thread of its own, as a look-up may take long.
class Resolver {
 public:
  using OnAddresses = absl::AnyInvocable<void(std::vector<Address>)>;

  // `on_addresses` gets all addresses of `servers` after each round in which every look-up
  // succeeded: a name server that does not answer takes no server away.
  Resolver(std::vector<std::string> servers, Lookup lookup, absl::Duration interval,
           OnAddresses on_addresses);
  // Waits for the look-up under way.
  ~Resolver();

 private:
  void Run();

  const std::vector<std::string> servers_;
  const Lookup lookup_;
  const absl::Duration interval_;
  OnAddresses on_addresses_;
  absl::Mutex mutex_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// Of all servers, without duplicates; the first error.
absl::StatusOr<std::vector<Address>> LookUpAll(const std::vector<std::string>& servers,
                                               const Lookup& lookup);

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_RESOLVER_H_
