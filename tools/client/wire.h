// Between the client's types and the contract's messages.
#ifndef QUIVER_TOOLS_CLIENT_WIRE_H_
#define QUIVER_TOOLS_CLIENT_WIRE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "quiver/client_types.h"
#include "quiver/v1/embed.pb.h"

namespace quiver::client {

v1::EmbedOptions ToWire(const EmbedOptions& options);
void ToWire(const Input& input, v1::Input* out);

// The vector of a result, or its error. DATA_LOSS if the vector's size is not what its type and
// dimensions say.
absl::StatusOr<Embedding> FromWire(v1::EmbedResult&& result);
VectorSpace FromWire(const v1::VectorSpace& space);
ModelInfo FromWire(const v1::ModelInfo& info);

// FAILED_PRECONDITION if answers of the two spaces must not stand side by side.
absl::Status CheckSameSpace(const VectorSpace& first, const v1::VectorSpace& other);

// About what `input` takes in a message, and its tokens: a text has one for four bytes.
size_t ContentBytes(const Input& input);
int64_t EstimateTokens(const Input& input);

// A message of so many inputs costs little beside their work, and small ones keep results coming.
inline constexpr size_t kGoodMessageItems = 64;

// How much of the inputs one message holds.
class MessageBudget {
 public:
  // `limits` are the server's.
  explicit MessageBudget(const v1::Limits& limits);

  // The error of an input that does not fit into any message, else OK.
  absl::Status Check(size_t bytes) const;
  // Whether a message of `items` inputs with `bytes` of content is as large as it should get before
  // one of `next_bytes` more.
  bool Full(size_t items, size_t bytes, size_t next_bytes) const;

 private:
  size_t max_items_;
  size_t max_bytes_;
};

}  // namespace quiver::client

#endif  // QUIVER_TOOLS_CLIENT_WIRE_H_
