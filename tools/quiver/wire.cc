#include "tools/quiver/wire.h"

#include <utility>
#include <vector>

#include "tools/client/rpc_status.h"
#include "tools/quiver/rpc_status.h"

namespace quiver {
namespace {

client::Truncation ToClient(Truncation truncation) {
  switch (truncation) {
    case Truncation::kNone:
      return client::Truncation::kNone;
    case Truncation::kRight:
      return client::Truncation::kRight;
    case Truncation::kLeft:
      return client::Truncation::kLeft;
  }
  return client::Truncation::kServerDefault;
}

client::ElementType ToClient(OutputType type) {
  switch (type) {
    case OutputType::kFloat32:
      return client::ElementType::kFloat32;
    case OutputType::kFloat16:
      return client::ElementType::kFloat16;
    case OutputType::kBfloat16:
      return client::ElementType::kBfloat16;
    case OutputType::kInt8:
      return client::ElementType::kInt8;
    case OutputType::kBinary:
      return client::ElementType::kBinary;
  }
  return client::ElementType::kFloat32;
}

}  // namespace

client::EmbedOptions ToClient(const WorkOptions& options) {
  const RequestOptions& request = options.request;
  client::EmbedOptions out;
  out.prompt_name = request.prompt_name;
  out.instruction = request.instruction;
  if (request.dimensions.has_value()) out.dimensions = static_cast<int>(*request.dimensions);
  out.normalize = request.normalize;
  if (request.truncation.has_value()) out.truncation = ToClient(*request.truncation);
  out.type = ToClient(request.output_type);
  out.lane = options.lane == Lane::kBulk ? client::Lane::kBulk : client::Lane::kInteractive;
  return out;
}

absl::StatusOr<Embedding> FromClient(absl::StatusOr<client::Embedding> result) {
  if (!result.ok()) return FromClientStatus(result.status());
  Embedding out;
  out.vector.data = std::move(result->data);
  out.vector.scale = result->scale;
  out.token_count = result->token_count;
  out.truncated = result->truncated;
  return out;
}

absl::StatusOr<TokenizedInput> FromWire(const v1::TokenizeResult& result) {
  if (result.has_error()) return FromClientStatus(client::FromRpcStatus(result.error()));
  const auto& ids = result.token_ids().ids();
  return TokenizedInput{std::vector<TokenId>(ids.begin(), ids.end()), result.truncated()};
}

}  // namespace quiver
