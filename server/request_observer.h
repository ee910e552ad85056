// What the doors (gRPC, HTTP) tell of the requests they answer, for metrics and the access log.
#ifndef QUIVER_SERVER_REQUEST_OBSERVER_H_
#define QUIVER_SERVER_REQUEST_OBSERVER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/run/encoding.h"
#include "engine/types.h"
#include "server/request_timeline.h"
#include "server/trace_context.h"

namespace quiver {

enum class Rpc : uint8_t { kEmbed, kEmbedStream, kTokenize, kGetModelInfo };
inline constexpr int kNumRpcs = 4;
// absl::StatusCode's values are 0 to 16.
inline constexpr size_t kNumCodes = 17;

// Items by outcome; `truncated` ones are among the succeeded, whose tokens alone are counted.
struct ItemCounts {
  int64_t succeeded = 0;
  int64_t failed = 0;
  int64_t truncated = 0;
  int64_t tokens = 0;
  // Of the failed ones, by code, and those whose vector was no vector (IsUnusableVector()).
  std::array<int64_t, kNumCodes> failed_by_code = {};
  int64_t unusable_vectors = 0;

  // Counts an item that was answered with `error`.
  void CountFailure(const absl::Status& error) {
    ++failed;
    ++failed_by_code[static_cast<size_t>(error.code())];
    unusable_vectors += IsUnusableVector(error) ? 1 : 0;
  }

  // What came since `before`.
  ItemCounts Since(const ItemCounts& before) const {
    ItemCounts since = *this;
    since.succeeded -= before.succeeded;
    since.failed -= before.failed;
    since.truncated -= before.truncated;
    since.tokens -= before.tokens;
    for (size_t i = 0; i < kNumCodes; ++i) since.failed_by_code[i] -= before.failed_by_code[i];
    since.unusable_vectors -= before.unusable_vectors;
    return since;
  }
};

// What is known of a request or stream when it comes.
struct RequestOrigin {
  Rpc rpc = Rpc::kEmbed;
  // Of HTTP: the path of the route, of static storage; empty for gRPC.
  absl::string_view route = {};
  // Address of the client, as the transport names it.
  std::string peer = {};
  // On whose behalf; set when it has been found to be good.
  std::string tenant = {};
  absl::Time arrival = {};
  // Invalid unless somebody wants to know.
  TraceContext trace = {};
};

// One request or stream, after its end, with its items.
struct RequestReport : RequestOrigin, ItemCounts {
  Lane lane = Lane::kInteractive;
  // Name of the model that ran, if one did.
  std::string model;
  // Of the request as a whole; items have outcomes of their own.
  absl::StatusCode code = absl::StatusCode::kOk;
  // As embed.proto's Timing.
  absl::Duration total;
  absl::Duration tokenize;
  absl::Duration queue;
  absl::Duration compute;
  RequestTimeline timeline;
  // Of the answer over HTTP; 0 for gRPC.
  int http_status = 0;
};

// Called on any thread, also on the scheduler's; must be quick and thread-safe.
class RequestObserver {
 public:
  virtual ~RequestObserver() = default;
  // The context of a request that comes with `headers`; invalid if nobody wants one.
  virtual TraceContext StartTrace(const TraceHeaders& /*headers*/) { return {}; }
  virtual void OnRequestStart(Rpc rpc) = 0;
  // Items that a request or stream has answered since the last call; a stream's come as it goes on.
  // All have come when it ends.
  virtual void OnItems(Rpc rpc, Lane lane, const ItemCounts& items) = 0;
  // Exactly once for each start.
  virtual void OnRequestEnd(const RequestReport& report) = 0;
};

}  // namespace quiver

#endif  // QUIVER_SERVER_REQUEST_OBSERVER_H_
