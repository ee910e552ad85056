#ifndef QUIVER_TOOLS_CLIENT_STREAM_LINK_H_
#define QUIVER_TOOLS_CLIENT_STREAM_LINK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "quiver/client_types.h"
#include "quiver/v1/embed.pb.h"
#include "tools/client/core.h"
#include "tools/client/endpoint.h"

namespace quiver::client {

// An input on its way.
struct StreamItem {
  Input input;
  uint64_t key = 0;
  // Its name on the wire.
  uint64_t number = 0;
  int64_t tokens = 0;
  int sends = 0;
};

class StreamLink;

// What a link asks and tells, on the loop.
class StreamLinkOwner {
 public:
  // What to send next, in one message and at most so many; nothing if at `now` it is better to wait.
  virtual std::vector<StreamItem> Take(size_t max_items, absl::Time now) = 0;
  // A server has accepted the stream. An error, which ends it, if it cannot be used.
  virtual absl::Status OnAccepted(const v1::VectorSpace& space) = 0;
  virtual void OnResult(StreamItem item, absl::StatusOr<Embedding> result) = 0;
  // `items` were sent and have no result.
  virtual void OnEnd(StreamLink* link, const absl::Status& status, bool half_closed,
                     std::vector<StreamItem> items) = 0;
  // Something may have become possible.
  virtual void Pump() = 0;

 protected:
  virtual ~StreamLinkOwner() = default;
};

// The stream to one server, opened again and again. For the loop's thread.
class StreamLink : public std::enable_shared_from_this<StreamLink> {
 public:
  // While a stream is open, `owner` must live.
  StreamLink(StreamLinkOwner* owner, Core* core, std::shared_ptr<Server> server);

  // Only while it is idle: there is no stream.
  void Open(const v1::EmbedStreamStart& start, absl::Time deadline);
  bool idle() const { return state_ == State::kIdle; }
  bool opening() const { return state_ == State::kOpening; }

  // Sends a message if the stream can take one. `alone`: there is no other server that might be
  // quicker.
  void Feed(bool alone, absl::Time now);
  // Nothing more will be sent.
  void HalfClose();
  // Ends the stream; the items without a result.
  std::vector<StreamItem> Cancel();

  Server& server() const { return *server_; }
  // Ends of streams without a result in between, and when to open the next one, or to go on.
  int failures = 0;
  absl::Time retry_at = absl::InfinitePast();

 private:
  enum class State { kIdle, kOpening, kOpen, kHalfClosed, kClosed };

  bool HasRoom(bool alone) const;
  void OnResponse(v1::EmbedStreamResponse response);
  void OnClosed();
  void OnDone(const absl::Status& status);
  void CountAnswered(int64_t tokens);
  std::vector<StreamItem> TakeUnanswered();

  StreamLinkOwner& owner_;
  Core& core_;
  const std::shared_ptr<Server> server_;
  State state_ = State::kIdle;
  bool half_closed_ = false;
  bool writing_ = false;
  // Until OnClosed.
  StreamCall* call_ = nullptr;
  v1::StreamLimits limits_;
  absl::flat_hash_map<uint64_t, StreamItem> unanswered_;
  int64_t tokens_ = 0;
  // Answered since `period_`, and tokens a second before it.
  int64_t answered_ = 0;
  absl::Time period_;
  double rate_ = 0;
};

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_STREAM_LINK_H_
