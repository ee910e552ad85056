// Between the CLI's types and the client library's.
#ifndef QUIVER_TOOLS_QUIVER_WIRE_H_
#define QUIVER_TOOLS_QUIVER_WIRE_H_

#include "absl/status/statusor.h"
#include "quiver/client_types.h"
#include "quiver/v1/embed.pb.h"
#include "tools/quiver/executor.h"

namespace quiver {

client::EmbedOptions ToClient(const WorkOptions& options);
absl::StatusOr<Embedding> FromClient(absl::StatusOr<client::Embedding> result);

absl::StatusOr<TokenizedInput> FromWire(const v1::TokenizeResult& result);

}  // namespace quiver

#endif  // QUIVER_TOOLS_QUIVER_WIRE_H_
