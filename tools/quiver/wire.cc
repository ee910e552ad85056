#include "tools/quiver/wire.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "tools/quiver/rpc_status.h"

namespace quiver {
namespace {

// A message of this size costs little beside its inputs' work, and small ones keep results coming.
constexpr int kGoodItems = 64;
constexpr size_t kGoodTextBytes = 256 * 1024;
// What a message may hold beside texts.
constexpr size_t kMessageOverhead = 64 * 1024;

v1::Truncation ToWire(Truncation truncation) {
  switch (truncation) {
    case Truncation::kNone:
      return v1::TRUNCATION_NONE;
    case Truncation::kRight:
      return v1::TRUNCATION_RIGHT;
    case Truncation::kLeft:
      return v1::TRUNCATION_LEFT;
  }
  return v1::TRUNCATION_UNSPECIFIED;
}

v1::OutputType ToWire(OutputType type) {
  switch (type) {
    case OutputType::kFloat32:
      return v1::OUTPUT_TYPE_FLOAT32;
    case OutputType::kFloat16:
      return v1::OUTPUT_TYPE_FLOAT16;
    case OutputType::kBfloat16:
      return v1::OUTPUT_TYPE_BFLOAT16;
    case OutputType::kInt8:
      return v1::OUTPUT_TYPE_INT8;
    case OutputType::kBinary:
      return v1::OUTPUT_TYPE_BINARY;
  }
  return v1::OUTPUT_TYPE_UNSPECIFIED;
}

absl::StatusOr<OutputType> FromWire(v1::OutputType type) {
  switch (type) {
    case v1::OUTPUT_TYPE_FLOAT32:
      return OutputType::kFloat32;
    case v1::OUTPUT_TYPE_FLOAT16:
      return OutputType::kFloat16;
    case v1::OUTPUT_TYPE_BFLOAT16:
      return OutputType::kBfloat16;
    case v1::OUTPUT_TYPE_INT8:
      return OutputType::kInt8;
    case v1::OUTPUT_TYPE_BINARY:
      return OutputType::kBinary;
    default:
      return absl::DataLossError(
          absl::StrCat("the server sent a vector of the unknown type ", static_cast<int>(type)));
  }
}

}  // namespace

v1::EmbedOptions ToWire(const WorkOptions& options) {
  v1::EmbedOptions out;
  const RequestOptions& request = options.request;
  if (request.prompt_name.has_value()) out.set_prompt_name(*request.prompt_name);
  if (request.instruction.has_value()) out.set_instruction(*request.instruction);
  if (request.dimensions.has_value()) {
    out.set_dimensions(static_cast<uint32_t>(*request.dimensions));
  }
  if (request.normalize.has_value()) out.set_normalize(*request.normalize);
  if (request.truncation.has_value()) out.set_truncation(ToWire(*request.truncation));
  out.set_output_type(ToWire(request.output_type));
  out.set_lane(options.lane == Lane::kBulk ? v1::LANE_BULK : v1::LANE_INTERACTIVE);
  return out;
}

absl::StatusOr<Embedding> FromWire(v1::EmbedResult&& result) {
  if (result.has_error()) return FromRpcStatus(result.error());
  v1::Embedding& in = *result.mutable_embedding();
  absl::StatusOr<OutputType> type = FromWire(in.type());
  if (!type.ok()) return type.status();
  const int dimensions = static_cast<int>(in.dimensions());
  if (dimensions <= 0 || in.data().size() != OutputBytes(*type, dimensions)) {
    return absl::DataLossError(absl::StrCat("the server sent ", in.data().size(),
                                            " bytes for a vector of ", in.dimensions(),
                                            " dimensions"));
  }
  Embedding out;
  out.vector.data = std::move(*in.mutable_data());
  out.vector.scale = in.scale();
  out.token_count = static_cast<int>(in.token_count());
  out.truncated = in.truncated();
  return out;
}

absl::StatusOr<TokenizedInput> FromWire(const v1::TokenizeResult& result) {
  if (result.has_error()) return FromRpcStatus(result.error());
  const auto& ids = result.token_ids().ids();
  return TokenizedInput{std::vector<TokenId>(ids.begin(), ids.end()), result.truncated()};
}

MessageBudget::MessageBudget(const v1::Limits& limits)
    : max_items_(std::clamp(static_cast<int>(limits.max_items_per_request()), 1, kGoodItems)),
      max_text_bytes_(limits.max_message_bytes() -
                      std::min<uint64_t>(limits.max_message_bytes(), kMessageOverhead)) {}

absl::Status MessageBudget::Check(size_t text_bytes) const {
  if (text_bytes <= max_text_bytes_) return absl::OkStatus();
  return FieldError(
      "text", absl::StrCat("must be at most ", max_text_bytes_,
                           " bytes to fit into a message to this server; it has ", text_bytes));
}

bool MessageBudget::Full(int items, size_t bytes, size_t next_bytes) const {
  return items >= max_items_ ||
         (items > 0 && bytes + next_bytes > std::min(max_text_bytes_, kGoodTextBytes));
}

}  // namespace quiver
