// A client of Quiver servers: texts or token ids in, vectors out.
//
//   auto client = quiver::Client::Create({.servers = {"localhost:50051"}});
//   auto reply = (*client)->Embed({"a cat", "a kitten"});
//   std::vector<float> vector = reply->results[0]->Floats();
#ifndef QUIVER_CLIENT_H_
#define QUIVER_CLIENT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "quiver/client_stream.h"
#include "quiver/client_types.h"

namespace quiver::client {

class Core;

// How a server is reached. Texts of PEM files and keys, not their paths.
struct ConnectionOptions {
  bool tls = false;
  // Authorities that the server's certificate may be from; empty for the system's.
  std::string tls_authorities_pem = {};
  // The name that the certificate must have; empty for that of the address.
  std::string tls_server_name = {};
  // Sent with each call, over TLS or not; empty for none.
  std::string api_key = {};
  // On whose behalf calls are made: tenants share a server fairly. At most 128 bytes.
  std::string tenant = {};
};

// UNAVAILABLE and RESOURCE_EXHAUSTED are tried again, at another server if there is one, else after
// a wait: the server's RetryInfo, or one that doubles from `first_wait` up to `max_wait`, spread at
// random so that clients do not come back all at once. A wait that would outlast the call's
// deadline ends the call at once.
struct RetryPolicy {
  // The first one counted. 1 never tries again.
  int max_tries = 6;
  absl::Duration first_wait = absl::Milliseconds(100);
  absl::Duration max_wait = absl::Seconds(5);
};

struct ClientOptions {
  // HOST:PORT each. A name that stands for several addresses is several servers. Each request goes
  // to the server that has the fewest of this client's tokens to answer.
  std::vector<std::string> servers;
  ConnectionOptions connection = {};
  RetryPolicy retry = {};
  // When a request without an answer is sent to a second server as well; the first answer counts
  // and the other request is cancelled. Costs the servers work; off by default.
  absl::Duration hedge_after = absl::InfiniteDuration();
  // How often names are looked up again.
  absl::Duration resolve_interval = absl::Seconds(30);
};

// Ends calls from any thread, before, while or after they run. Copies mean the same calls.
class Cancellation {
 public:
  Cancellation();
  void Cancel();
  bool cancelled() const;

 private:
  friend class Core;
  struct State;
  std::shared_ptr<State> state_;
};

struct CallOptions {
  // For the whole call, tries and waits included.
  absl::Duration timeout = absl::Seconds(60);
  // Without one the call cannot be cancelled.
  const Cancellation* cancellation = nullptr;
};

// Thread-safe. One client serves a whole process: it holds one connection to each server and two
// threads of its own, one for callbacks and one that looks names up.
class Client {
 public:
  using EmbedDone = absl::AnyInvocable<void(absl::StatusOr<EmbedReply>)>;

  // Looks names up, and connects when a call needs it. INVALID_ARGUMENT names the option that
  // cannot be used; UNAVAILABLE if no name has an address.
  static absl::StatusOr<std::unique_ptr<Client>> Create(ClientOptions options);

  // What Create makes.
  explicit Client(std::shared_ptr<Core> core);

  // Ends calls under way as CANCELLED, and returns when all their callbacks have returned. Streams
  // must have been destroyed before. Not from a callback.
  ~Client();

  // Any number of inputs: they are sent in requests that fit the server's limits, a few at a time.
  //
  // Not OK if no input got as far as having a result of its own: a wrong option is INVALID_ARGUMENT
  // with an ErrorField; no server UNAVAILABLE; FAILED_PRECONDITION if servers answered from
  // different vector spaces, which must not be mixed. If only some requests failed, theirs is the
  // error of their inputs. Not from a callback, which would wait for itself.
  absl::StatusOr<EmbedReply> Embed(std::vector<Input> inputs, const EmbedOptions& options = {},
                                   const CallOptions& call = {});

  // The same without waiting: `done` is called exactly once, on the client's own thread, which it
  // must not hold up.
  void EmbedAsync(std::vector<Input> inputs, const EmbedOptions& options, const CallOptions& call,
                  EmbedDone done);

  // For any number of inputs whose results are wanted as they complete. Returns once a server has
  // accepted the options, or why none did. The stream must not outlive the client.
  absl::StatusOr<std::unique_ptr<EmbedStream>> OpenStream(const EmbedOptions& options = {},
                                                          const StreamOptions& stream = {});

  // What the first server that answers serves. Asked for once.
  absl::StatusOr<ModelInfo> GetModelInfo(const CallOptions& call = {});

 private:
  const std::shared_ptr<Core> core_;
};

}  // namespace quiver::client

namespace quiver {
using client::Client;
}  // namespace quiver

#endif  // QUIVER_CLIENT_H_
