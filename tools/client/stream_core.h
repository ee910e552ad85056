#ifndef QUIVER_TOOLS_CLIENT_STREAM_CORE_H_
#define QUIVER_TOOLS_CLIENT_STREAM_CORE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "quiver/client_stream.h"
#include "tools/client/core.h"
#include "tools/client/retried_call.h"
#include "tools/client/stream_link.h"
#include "tools/client/wire.h"

namespace quiver::client {

// The inside of an EmbedStream: what its user has written waits here until a server has room, what
// is answered until the user reads it.
class StreamCore : public StreamLinkOwner, public std::enable_shared_from_this<StreamCore> {
 public:
  // `core` must outlive what is under way.
  StreamCore(Core* core, const EmbedOptions& options, const StreamOptions& stream);

  // Returns once a server has accepted the options. The rest only after this; as EmbedStream's.
  absl::Status Open();
  bool Write(Input input, uint64_t key);
  void WritesDone();
  bool Read(StreamResult* result);
  absl::Status Finish();
  void Cancel();
  // Returns when nothing is under way any more, after Cancel or an end.
  void AwaitIdle();
  const VectorSpace& space() const { return *space_; }

 private:
  // On the loop.
  void Start();
  std::vector<StreamItem> Take(size_t max_items, absl::Time now) override;
  absl::Status OnAccepted(const v1::VectorSpace& space) override;
  void OnResult(StreamItem item, absl::StatusOr<Embedding> result) override;
  void OnEnd(StreamLink* link, const absl::Status& status, bool half_closed,
             std::vector<StreamItem> items) override;
  void Pump() override;
  // Opens a link to the best of the servers that have none, or sees to it that it is tried later.
  void OpenLink(absl::Time now);
  void AddLinks();
  void PumpAt(absl::Time time);
  // Its result, or back among those to send, if it may be sent again.
  void Return(StreamItem item, const absl::Status& status);
  void Deliver(const StreamItem& item, absl::StatusOr<Embedding> result);
  // The first call decides.
  void End(const absl::Status& status);
  void CheckIdle();
  std::optional<StreamItem> NextItem();

  // Whether what was written is worth a message now.
  bool Due(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PostPump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasRoom(int64_t tokens) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Readable() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !results_.empty() || end_.has_value();
  }
  bool Settled() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return idle_; }

  Core& core_;
  const StreamOptions options_;
  v1::EmbedStreamStart start_;
  Promise<absl::Status> opened_;

  // On the loop.
  uint64_t id_ = 0;
  Tries info_tries_;
  std::shared_ptr<RetriedCall> info_call_;
  std::optional<MessageBudget> budget_;
  std::vector<std::shared_ptr<StreamLink>> links_;
  // To send again, before what was written later.
  std::deque<StreamItem> returned_;
  EventLoop::Timer pump_timer_;
  EventLoop::Timer deadline_timer_;
  bool ended_ = false;
  // Before opened_, never changed.
  std::optional<VectorSpace> space_;

  absl::Mutex mutex_;
  std::deque<StreamItem> written_ ABSL_GUARDED_BY(mutex_);
  // When the first of them came.
  absl::Time oldest_ ABSL_GUARDED_BY(mutex_);
  bool writes_done_ ABSL_GUARDED_BY(mutex_) = false;
  bool pump_posted_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_number_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::pair<StreamResult, int64_t>> results_ ABSL_GUARDED_BY(mutex_);
  int64_t items_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t tokens_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool idle_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_STREAM_CORE_H_
