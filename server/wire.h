// Between embed.proto's messages and the engine's types.
#ifndef QUIVER_SERVER_WIRE_H_
#define QUIVER_SERVER_WIRE_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/embedder.h"
#include "quiver/v1/embed.pb.h"
#include "server/input_tokenizer.h"
#include "server/message_parser.h"
#include "server/request_observer.h"

namespace quiver {

// Bytes of Input.id.
inline constexpr size_t kMaxIdBytes = 1024;

// What a request's options ask of the engine.
struct ResolvedOptions {
  std::shared_ptr<const RequestPlan> plan;
  Lane lane = Lane::kInteractive;
};

// INVALID_ARGUMENT for an option that the model does not have or an enum value that is not in the
// contract, with the field's path under `prefix` ("options."). `unspecified` is the lane of a
// request that names none.
absl::StatusOr<ResolvedOptions> Resolve(const Embedder& embedder, const v1::EmbedOptions& options,
                                        Lane unspecified, absl::string_view prefix);

// An error about the first of `invalid` that is not within an input, and so fails the whole
// request.
absl::Status CheckStrings(const InvalidStrings& invalid);

// INVALID_ARGUMENT about `field` if there are more than `limit`.
absl::Status CheckItemCount(absl::string_view field, int64_t count, int limit);

// The inputs of a message, which must outlive them. What is wrong with one is in its status.
// `vocabulary_size` is for the message about ids that no TokenId holds; the engine checks the rest.
std::vector<CallInput> ToCallInputs(const google::protobuf::RepeatedPtrField<v1::Input>& inputs,
                                    const InvalidStrings& invalid, int vocabulary_size);

// Echoes the id of `input` unless it is too long.
void SetId(const v1::Input& input, std::string* out);

// `position` is the input's in its message, for an error's path.
void SetOutcome(absl::StatusOr<Embedding> result, const OutputSpec& output, size_t position,
                v1::EmbedResult* out);
void SetUsage(const RequestReport& report, v1::Usage* out);
void SetTiming(const RequestReport& report, v1::Timing* out);
void SetVectorSpace(const RequestPlan& plan, v1::VectorSpace* out);

// What the engine says of the model: all but its space, aliases, version and the door's limits.
void SetModelInfo(const ModelInfo& info, v1::ModelInfo* out);

// "inputs[3]."
std::string InputPrefix(size_t position);

}  // namespace quiver

#endif  // QUIVER_SERVER_WIRE_H_
