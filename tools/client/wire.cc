#include "tools/client/wire.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tools/client/rpc_status.h"

namespace quiver::client {
namespace {

// As kGoodMessageItems.
constexpr size_t kGoodBytes = 256 * 1024;
// What a message may hold beside its inputs' content.
constexpr size_t kMessageOverhead = 64 * 1024;
// Of a token id, as a varint.
constexpr size_t kIdBytes = 3;

v1::Truncation ToWire(Truncation truncation) {
  switch (truncation) {
    case Truncation::kServerDefault:
      return v1::TRUNCATION_UNSPECIFIED;
    case Truncation::kNone:
      return v1::TRUNCATION_NONE;
    case Truncation::kRight:
      return v1::TRUNCATION_RIGHT;
    case Truncation::kLeft:
      return v1::TRUNCATION_LEFT;
  }
  return v1::TRUNCATION_UNSPECIFIED;
}

v1::Lane ToWire(Lane lane) {
  switch (lane) {
    case Lane::kDefault:
      return v1::LANE_UNSPECIFIED;
    case Lane::kInteractive:
      return v1::LANE_INTERACTIVE;
    case Lane::kBulk:
      return v1::LANE_BULK;
  }
  return v1::LANE_UNSPECIFIED;
}

constexpr std::pair<ElementType, v1::OutputType> kTypes[] = {
    {ElementType::kFloat32, v1::OUTPUT_TYPE_FLOAT32},
    {ElementType::kFloat16, v1::OUTPUT_TYPE_FLOAT16},
    {ElementType::kBfloat16, v1::OUTPUT_TYPE_BFLOAT16},
    {ElementType::kInt8, v1::OUTPUT_TYPE_INT8},
    {ElementType::kBinary, v1::OUTPUT_TYPE_BINARY}};

v1::OutputType ToWire(ElementType type) {
  for (const auto& [ours, wire] : kTypes) {
    if (ours == type) return wire;
  }
  return v1::OUTPUT_TYPE_UNSPECIFIED;
}

absl::StatusOr<ElementType> FromWire(v1::OutputType type) {
  for (const auto& [ours, wire] : kTypes) {
    if (wire == type) return ours;
  }
  return absl::DataLossError(
      absl::StrCat("the server sent a vector of the unknown type ", static_cast<int>(type)));
}

size_t PackedBytes(ElementType type, size_t dimensions) {
  switch (type) {
    case ElementType::kFloat32:
      return 4 * dimensions;
    case ElementType::kFloat16:
    case ElementType::kBfloat16:
      return 2 * dimensions;
    case ElementType::kInt8:
      return dimensions;
    case ElementType::kBinary:
      return (dimensions + 7) / 8;
  }
  return 0;
}

}  // namespace

v1::EmbedOptions ToWire(const EmbedOptions& options) {
  v1::EmbedOptions out;
  if (options.prompt_name.has_value()) out.set_prompt_name(*options.prompt_name);
  if (options.instruction.has_value()) out.set_instruction(*options.instruction);
  if (options.dimensions.has_value()) {
    out.set_dimensions(static_cast<uint32_t>(*options.dimensions));
  }
  if (options.normalize.has_value()) out.set_normalize(*options.normalize);
  out.set_truncation(ToWire(options.truncation));
  out.set_output_type(ToWire(options.type));
  out.set_lane(ToWire(options.lane));
  return out;
}

void ToWire(const Input& input, v1::Input* out) {
  if (const auto* text = std::get_if<std::string>(&input.content)) {
    out->set_text(*text);
  } else {
    const auto& ids = std::get<std::vector<uint32_t>>(input.content);
    out->mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  }
}

absl::StatusOr<Embedding> FromWire(v1::EmbedResult&& result) {
  if (result.has_error()) return FromRpcStatus(result.error());
  v1::Embedding& in = *result.mutable_embedding();
  absl::StatusOr<ElementType> type = FromWire(in.type());
  if (!type.ok()) return type.status();
  if (in.dimensions() == 0 || in.data().size() != PackedBytes(*type, in.dimensions())) {
    return absl::DataLossError(absl::StrCat("the server sent ", in.data().size(),
                                            " bytes for a vector of ", in.dimensions(),
                                            " dimensions"));
  }
  Embedding out;
  out.data = std::move(*in.mutable_data());
  out.type = *type;
  out.dimensions = static_cast<int>(in.dimensions());
  out.scale = in.scale();
  out.token_count = static_cast<int>(in.token_count());
  out.truncated = in.truncated();
  return out;
}

VectorSpace FromWire(const v1::VectorSpace& space) {
  return {space.fingerprint(), space.prompt_fingerprint()};
}

ModelInfo FromWire(const v1::ModelInfo& info) {
  ModelInfo out;
  out.model = info.model();
  out.aliases.assign(info.aliases().begin(), info.aliases().end());
  out.architecture = info.architecture();
  out.quantization = info.quantization();
  out.device = info.device();
  out.server_version = info.server_version();
  out.hidden_size = static_cast<int>(info.hidden_size());
  out.vocabulary_size = info.vocabulary_size();
  out.default_dimensions = static_cast<int>(info.dimensions().default_value());
  out.min_dimensions = static_cast<int>(info.dimensions().min_value());
  out.max_dimensions = static_cast<int>(info.dimensions().max_value());
  out.max_input_tokens = static_cast<int>(info.limits().max_input_tokens());
  for (const v1::Prompt& prompt : info.prompts()) {
    out.prompts.emplace_back(prompt.name(), prompt.text());
  }
  out.default_prompt_name = info.default_prompt_name();
  out.accepts_instruction = info.accepts_instruction();
  out.space = FromWire(info.vector_space());
  return out;
}

absl::Status CheckSameSpace(const VectorSpace& first, const v1::VectorSpace& other) {
  if (first.fingerprint == other.fingerprint() &&
      first.prompt_fingerprint == other.prompt_fingerprint()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "the servers have different vector spaces: one answers with the fingerprints '",
      first.fingerprint, "' and '", first.prompt_fingerprint, "' (its prompt's), another with '",
      other.fingerprint(), "' and '", other.prompt_fingerprint(), "'"));
}

size_t ContentBytes(const Input& input) {
  if (const auto* text = std::get_if<std::string>(&input.content)) return text->size();
  return kIdBytes * std::get<std::vector<uint32_t>>(input.content).size();
}

int64_t EstimateTokens(const Input& input) {
  if (const auto* text = std::get_if<std::string>(&input.content)) {
    return static_cast<int64_t>(text->size() / 4 + 1);
  }
  const size_t ids = std::get<std::vector<uint32_t>>(input.content).size();
  return static_cast<int64_t>(std::max<size_t>(1, ids));
}

MessageBudget::MessageBudget(const v1::Limits& limits)
    : max_items_(std::clamp<size_t>(limits.max_items_per_request(), 1, kGoodMessageItems)),
      max_bytes_(limits.max_message_bytes() -
                 std::min<uint64_t>(limits.max_message_bytes(), kMessageOverhead)) {}

absl::Status MessageBudget::Check(size_t bytes) const {
  if (bytes <= max_bytes_) return absl::OkStatus();
  return FieldError("text",
                    absl::StrCat("must be at most ", max_bytes_,
                                 " bytes to fit into a message to this server; it has ", bytes));
}

bool MessageBudget::Full(size_t items, size_t bytes, size_t next_bytes) const {
  return items >= max_items_ ||
         (items > 0 && bytes + next_bytes > std::min(max_bytes_, kGoodBytes));
}

}  // namespace quiver::client
