#ifndef QUIVER_SERVER_STREAM_RESULTS_H_
#define QUIVER_SERVER_STREAM_RESULTS_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/embedder.h"
#include "quiver/v1/embed.pb.h"
#include "server/request_observer.h"

namespace quiver {

// An answered item of a stream.
struct StreamItem {
  // In the stream, and in the message that it came with.
  uint64_t index = 0;
  size_t position = 0;
  std::string id;
  int64_t tokens = 0;
  absl::StatusOr<Embedding> result = absl::UnknownError("no result");
};

// Results of a stream between the engine and the client: puts them in order if that is asked for.
// Not thread-safe.
class StreamResults {
 public:
  void set_in_order(bool in_order) { in_order_ = in_order; }

  void Add(StreamItem item);
  // Whether there are any to send.
  bool empty() const { return ready_.empty(); }
  // Removes the next results that make up one response of moderate size.
  std::vector<StreamItem> Take();
  void Clear();

 private:
  bool in_order_ = false;
  std::deque<StreamItem> ready_;
  // Those that came before an earlier one.
  std::map<uint64_t, StreamItem> early_;
  uint64_t next_ = 0;
};

// What a stream's summary says.
class StreamTally {
 public:
  void Start(Lane lane, std::string model) {
    report_.lane = lane;
    report_.model = std::move(model);
  }
  void Add(const StreamItem& item);
  void AddTokenizeTime(absl::Duration spent) { report_.tokenize += spent; }

  const RequestReport& report() const { return report_; }
  void Fill(v1::StreamSummary* out) const;

 private:
  RequestReport report_;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_STREAM_RESULTS_H_
