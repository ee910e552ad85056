// Bulk work: inputs go in, results come out as they complete.
#ifndef QUIVER_CLIENT_STREAM_H_
#define QUIVER_CLIENT_STREAM_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "quiver/client_types.h"

namespace quiver::client {

class StreamCore;

struct StreamOptions {
  // For the whole stream.
  absl::Time deadline = absl::InfiniteFuture();
  // Tokens of inputs that were written and whose results were not read yet, a text counted as a
  // token for four bytes. Bounds the client's memory: Write waits while as much is under way. A
  // single longer input is let in.
  int64_t max_tokens_in_flight = 1 << 20;
  int64_t max_items_in_flight = 8192;
  // How often an input is sent, at most, to servers that end their stream without an answer to it.
  int max_sends = 10;
};

struct StreamResult {
  // As it was given to Write.
  uint64_t key = 0;
  absl::StatusOr<Embedding> embedding;
  // The error is the stream's, which failed before this input had a result of its own.
  bool stream_failed = false;
};

// One writer and one reader at a time, on two threads: the writer waits for room that only the
// reader makes. The inputs are spread over all servers of the client, as fast as each answers. What
// a server that breaks off has not answered is sent again, so that each input written has exactly
// one result.
//
// The stream as a whole fails if all servers failed ClientOptions::retry.max_tries times in a row,
// if one refused it for good, at its deadline, or if servers have different vector spaces. Every
// input without a result then gets that error as its result.
class EmbedStream {
 public:
  explicit EmbedStream(std::shared_ptr<StreamCore> core);
  // As Cancel; returns when nothing of the stream is under way.
  ~EmbedStream();

  // `key` is the caller's name for the input and need not be unique. Waits for room. False if the
  // stream has ended: the input was not taken and has no result.
  bool Write(Input input, uint64_t key);
  // Nothing more will be written.
  void WritesDone();

  // Waits for the next result. False when there will be none: after WritesDone and the last result,
  // or when the stream failed.
  bool Read(StreamResult* result);
  // After Read has returned false: OK, or why the stream failed.
  absl::Status Finish();

  // Ends the stream as CANCELLED. From any thread.
  void Cancel();

  const VectorSpace& space() const;

 private:
  const std::shared_ptr<StreamCore> core_;
};

}  // namespace quiver::client

#endif  // QUIVER_CLIENT_STREAM_H_
