#ifndef QUIVER_TOOLS_CLIENT_EMBED_CALL_H_
#define QUIVER_TOOLS_CLIENT_EMBED_CALL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "quiver/client.h"
#include "tools/client/core.h"
#include "tools/client/retried_call.h"

namespace quiver::client {

// One Client::Embed: its inputs in requests that fit the server, each tried on its own. For the
// loop's thread, from Start on.
class EmbedCall : public std::enable_shared_from_this<EmbedCall> {
 public:
  EmbedCall(Core* core, std::vector<Input> inputs, EmbedOptions options, absl::Time deadline,
            Client::EmbedDone done);

  // With `cancellation`, unless it is null.
  void Start(const Cancellation* cancellation);

 private:
  // Inputs that are sent together, until each has its result.
  struct Part {
    std::vector<size_t> positions;
    Tries tries;
    std::shared_ptr<RetriedCall> call;
  };

  void Split(const v1::ModelInfo& info);
  // Sends parts that wait, while there is room.
  void Feed();
  void Send(Part* part);
  void OnReply(Part* part, absl::StatusOr<UnaryReply> reply, const std::shared_ptr<Server>& server);
  // Takes the results, and leaves the part with what is to be tried again.
  void Take(Part* part, v1::EmbedResponse response, const std::shared_ptr<Server>& server);
  void Complete();
  void End(absl::StatusOr<EmbedReply> reply);

  Core& core_;
  const std::vector<Input> inputs_;
  const EmbedOptions options_;
  const absl::Time deadline_;
  Client::EmbedDone done_;
  uint64_t id_ = 0;
  std::function<void()> unwatch_ = [] {};
  bool ended_ = false;

  Tries info_tries_;
  std::shared_ptr<RetriedCall> info_call_;
  std::deque<Part> parts_;
  size_t next_part_ = 0;
  int open_parts_ = 0;
  bool feeding_ = false;
  std::vector<std::optional<absl::StatusOr<Embedding>>> results_;
  // Whether any input has a result of its own, and what the first request failed with.
  bool any_result_ = false;
  absl::Status first_failure_;
  std::optional<EmbedReply> reply_;
};

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_EMBED_CALL_H_
