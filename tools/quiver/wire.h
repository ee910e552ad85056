// Between the CLI's types and the contract's messages.
#ifndef QUIVER_TOOLS_QUIVER_WIRE_H_
#define QUIVER_TOOLS_QUIVER_WIRE_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quiver/v1/embed.pb.h"
#include "tools/quiver/executor.h"

namespace quiver {

v1::EmbedOptions ToWire(const WorkOptions& options);

// The vector of a result, or its error. DATA_LOSS if the vector's size is not what its type and
// dimensions say.
absl::StatusOr<Embedding> FromWire(v1::EmbedResult&& result);
absl::StatusOr<TokenizedInput> FromWire(const v1::TokenizeResult& result);

// How much of the texts one message holds.
class MessageBudget {
 public:
  // `limits` are the server's.
  explicit MessageBudget(const v1::Limits& limits);

  // The error of a text that does not fit into any message, else OK.
  absl::Status Check(size_t text_bytes) const;
  // Whether a message of `items` inputs with `bytes` of text is as large as it should get before
  // one of `next_bytes` more.
  bool Full(int items, size_t bytes, size_t next_bytes) const;

 private:
  int max_items_;
  size_t max_text_bytes_;
};

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_WIRE_H_
