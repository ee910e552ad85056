// One server, as the client's logic sees it: gRPC's, or a test's.
#ifndef QUIVER_TOOLS_CLIENT_ENDPOINT_H_
#define QUIVER_TOOLS_CLIENT_ENDPOINT_H_

#include <functional>
#include <memory>
#include <string>
#include <variant>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "quiver/v1/embed.pb.h"

namespace quiver::client {

using UnaryRequest = std::variant<v1::EmbedRequest, v1::GetModelInfoRequest>;
using UnaryReply = std::variant<v1::EmbedResponse, v1::ModelInfo>;
using UnaryDone = absl::AnyInvocable<void(absl::StatusOr<UnaryReply>)>;

// A request under way.
class UnaryCall {
 public:
  virtual ~UnaryCall() = default;
  // Its end is then near, and still told. Without effect on one that has ended.
  virtual void Cancel() = 0;
};

// Called on any thread, one after another.
struct StreamEvents {
  // The last message given to Write has been taken.
  std::function<void()> written;
  std::function<void(v1::EmbedStreamResponse)> response;
  // No response will come: what is left to do is StreamCall::Release.
  std::function<void()> closed;
  // After Release, exactly once, last.
  absl::AnyInvocable<void(absl::Status)> done;
};

// A stream under way, for one thread. Lives until Release.
class StreamCall {
 public:
  // Not before `written` of the message before.
  virtual void Write(v1::EmbedStreamRequest message) = 0;
  virtual void WritesDone() = 0;
  virtual void Cancel() = 0;
  // The last call of all; only after `closed`.
  virtual void Release() = 0;

 protected:
  virtual ~StreamCall() = default;
};

// Thread-safe. Must outlive what it starts. A callback may run before the method that it was given
// to returns.
class Endpoint {
 public:
  virtual ~Endpoint() = default;
  virtual std::shared_ptr<UnaryCall> Start(std::shared_ptr<const UnaryRequest> request,
                                           absl::Time deadline, UnaryDone done) = 0;
  virtual StreamCall* StartStream(absl::Time deadline, StreamEvents events) = 0;
};

// Where a server is. `name` is what it was asked for by.
struct Address {
  std::string target;
  std::string name;

  friend bool operator==(const Address&, const Address&) = default;
};

using EndpointFactory = std::function<std::unique_ptr<Endpoint>(const Address&)>;

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_ENDPOINT_H_
