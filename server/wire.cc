#include "server/wire.h"

#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "server/grpc_status.h"

namespace quiver {
namespace {

template <typename Enum>
absl::Status UnknownValue(absl::string_view field, Enum value, int max) {
  return FieldError(field,
                    absl::StrCat("must be from 0 to ", max, "; it is ", static_cast<int>(value)));
}

// Ids as the engine has them: the same bits, as every valid one fits 31.
absl::StatusOr<absl::Span<const TokenId>> ToSpan(const v1::TokenIds& ids, int vocabulary_size) {
  for (int i = 0; i < ids.ids_size(); ++i) {
    if (ids.ids(i) > static_cast<uint32_t>(std::numeric_limits<TokenId>::max())) {
      return FieldError("token_ids", absl::StrCat("must be from 0 to ", vocabulary_size - 1,
                                                  "; the id at index ", i, " is ", ids.ids(i)));
    }
  }
  return absl::MakeConstSpan(reinterpret_cast<const TokenId*>(ids.ids().data()),
                             static_cast<size_t>(ids.ids_size()));
}

// What is wrong with the strings of the input at `position`.
absl::Status CheckInputStrings(const v1::Input& input, size_t position,
                               const InvalidStrings& invalid) {
  if (input.id().size() > kMaxIdBytes) {
    return FieldError(
        "id", absl::StrCat("must be at most ", kMaxIdBytes, " bytes; it has ", input.id().size()));
  }
  if (invalid.empty()) return absl::OkStatus();
  for (const char* field : {"id", "text"}) {
    const auto it = invalid.find(InputPrefix(position) + field);
    if (it != invalid.end()) {
      return FieldError(field, absl::StrCat("invalid UTF-8 at byte ", it->second));
    }
  }
  return absl::OkStatus();
}

CallInput ToCallInput(const v1::Input& input, size_t position, const InvalidStrings& invalid,
                      int vocabulary_size) {
  if (absl::Status status = CheckInputStrings(input, position, invalid); !status.ok()) {
    return {.content = {}, .status = std::move(status)};
  }
  switch (input.content_case()) {
    case v1::Input::kText:
      return {.content = absl::string_view(input.text())};
    case v1::Input::kTokenIds: {
      absl::StatusOr<absl::Span<const TokenId>> ids = ToSpan(input.token_ids(), vocabulary_size);
      if (!ids.ok()) return {.content = {}, .status = ids.status()};
      return {.content = *ids};
    }
    case v1::Input::CONTENT_NOT_SET:
      break;
  }
  return {.content = {}, .status = FieldError("content", "must be text or token_ids; it is unset")};
}

v1::OutputType ToWire(OutputType type) {
  return static_cast<v1::OutputType>(static_cast<int>(type) + v1::OUTPUT_TYPE_FLOAT32);
}
static_assert(static_cast<int>(OutputType::kBinary) + v1::OUTPUT_TYPE_FLOAT32 ==
              v1::OUTPUT_TYPE_BINARY);

v1::Truncation ToWire(Truncation truncation) {
  return static_cast<v1::Truncation>(static_cast<int>(truncation) + v1::TRUNCATION_NONE);
}
static_assert(static_cast<int>(Truncation::kLeft) + v1::TRUNCATION_NONE == v1::TRUNCATION_LEFT);

void SetDuration(absl::Duration duration, google::protobuf::Duration* out) {
  absl::Duration rest;
  out->set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &rest));
  out->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
}

// `status` with the field it speaks of put under `prefix`.
absl::Status WithFieldPrefix(const absl::Status& status, absl::string_view prefix) {
  const std::string field = ErrorField(status);
  return field.empty() ? status : FieldError(absl::StrCat(prefix, field), status.message());
}

absl::StatusOr<RequestOptions> ToRequestOptions(const v1::EmbedOptions& options) {
  RequestOptions out;
  if (options.has_prompt_name()) out.prompt_name = options.prompt_name();
  if (options.has_instruction()) out.instruction = options.instruction();
  if (options.has_dimensions()) out.dimensions = options.dimensions();
  if (options.has_normalize()) out.normalize = options.normalize();
  if (!v1::Truncation_IsValid(options.truncation())) {
    return UnknownValue("truncation", options.truncation(), v1::Truncation_MAX);
  }
  if (options.truncation() != v1::TRUNCATION_UNSPECIFIED) {
    out.truncation = static_cast<Truncation>(options.truncation() - v1::TRUNCATION_NONE);
  }
  if (!v1::OutputType_IsValid(options.output_type())) {
    return UnknownValue("output_type", options.output_type(), v1::OutputType_MAX);
  }
  if (options.output_type() != v1::OUTPUT_TYPE_UNSPECIFIED) {
    out.output_type = static_cast<OutputType>(options.output_type() - v1::OUTPUT_TYPE_FLOAT32);
  }
  return out;
}

absl::StatusOr<Lane> ToLane(v1::Lane lane, Lane unspecified) {
  switch (lane) {
    case v1::LANE_UNSPECIFIED:
      return unspecified;
    case v1::LANE_INTERACTIVE:
      return Lane::kInteractive;
    case v1::LANE_BULK:
      return Lane::kBulk;
    default:
      return UnknownValue("lane", lane, v1::Lane_MAX);
  }
}

}  // namespace

std::string InputPrefix(size_t position) { return absl::StrCat("inputs[", position, "]."); }

absl::StatusOr<ResolvedOptions> Resolve(const Embedder& embedder, const v1::EmbedOptions& options,
                                        Lane unspecified, absl::string_view prefix) {
  absl::StatusOr<RequestOptions> wishes = ToRequestOptions(options);
  if (!wishes.ok()) return WithFieldPrefix(wishes.status(), prefix);
  absl::StatusOr<Lane> lane = ToLane(options.lane(), unspecified);
  if (!lane.ok()) return WithFieldPrefix(lane.status(), prefix);
  absl::StatusOr<RequestPlan> plan = embedder.Plan(*wishes);
  if (!plan.ok()) return WithFieldPrefix(plan.status(), prefix);
  return ResolvedOptions{std::make_shared<const RequestPlan>(*std::move(plan)), *lane};
}

absl::Status CheckStrings(const InvalidStrings& invalid) {
  for (const auto& [path, offset] : invalid) {
    if (absl::StartsWith(path, "inputs[")) continue;
    return FieldError(path, absl::StrCat("invalid UTF-8 at byte ", offset));
  }
  return absl::OkStatus();
}

absl::Status CheckItemCount(absl::string_view field, int64_t count, int limit) {
  if (count <= limit) return absl::OkStatus();
  return FieldError(field, absl::StrCat("must be at most ", limit, "; there are ", count));
}

std::vector<CallInput> ToCallInputs(const google::protobuf::RepeatedPtrField<v1::Input>& inputs,
                                    const InvalidStrings& invalid, int vocabulary_size) {
  std::vector<CallInput> out;
  out.reserve(static_cast<size_t>(inputs.size()));
  for (const v1::Input& input : inputs) {
    out.push_back(ToCallInput(input, out.size(), invalid, vocabulary_size));
  }
  return out;
}

void SetId(const v1::Input& input, std::string* out) {
  if (input.id().size() <= kMaxIdBytes) *out = input.id();
}

void SetOutcome(absl::StatusOr<Embedding> result, const OutputSpec& output, size_t position,
                v1::EmbedResult* out) {
  if (!result.ok()) {
    *out->mutable_error() = ToRpcStatus(result.status(), InputPrefix(position));
    return;
  }
  v1::Embedding& embedding = *out->mutable_embedding();
  embedding.set_data(std::move(result->vector.data));
  embedding.set_type(ToWire(output.type));
  embedding.set_dimensions(static_cast<uint32_t>(output.dimensions));
  embedding.set_scale(result->vector.scale);
  embedding.set_token_count(static_cast<uint32_t>(result->token_count));
  embedding.set_truncated(result->truncated);
}

void SetUsage(const RequestReport& report, v1::Usage* out) {
  out->set_total_tokens(static_cast<uint64_t>(report.tokens));
  out->set_succeeded(static_cast<uint32_t>(report.succeeded));
  out->set_failed(static_cast<uint32_t>(report.failed));
  out->set_truncated(static_cast<uint32_t>(report.truncated));
}

void SetTiming(const RequestReport& report, v1::Timing* out) {
  SetDuration(report.total, out->mutable_total());
  SetDuration(report.tokenize, out->mutable_tokenize());
  SetDuration(report.queue, out->mutable_queue());
  SetDuration(report.compute, out->mutable_compute());
}

void SetVectorSpace(const RequestPlan& plan, v1::VectorSpace* out) {
  out->set_fingerprint(plan.space_fingerprint);
  out->set_prompt_fingerprint(plan.prompt_fingerprint);
}

void SetModelInfo(const ModelInfo& info, v1::ModelInfo* out) {
  const ModelConfig& config = info.config;
  out->set_model(info.name);
  out->set_architecture(FamilyName(config.family));
  out->set_hidden_size(static_cast<uint32_t>(config.hidden_size));
  out->set_num_layers(static_cast<uint32_t>(config.num_layers));
  out->set_vocabulary_size(static_cast<uint32_t>(info.vocabulary_size));
  out->set_parameters(static_cast<uint64_t>(info.num_parameters));
  out->set_pooling(PoolingName(config.pooling));
  out->set_weight_type(info.weight_type);
  out->set_quantization(config.quantization);
  out->set_device(info.backend.device);
  v1::Dimensions& dimensions = *out->mutable_dimensions();
  dimensions.set_default_value(static_cast<uint32_t>(info.default_dimensions));
  dimensions.set_min_value(static_cast<uint32_t>(config.min_dimensions));
  dimensions.set_max_value(static_cast<uint32_t>(config.hidden_size));
  for (const auto& [name, text] : config.prompts) {
    v1::Prompt& prompt = *out->add_prompts();
    prompt.set_name(name);
    prompt.set_text(text);
  }
  out->set_default_prompt_name(info.default_prompt_name);
  out->set_accepts_instruction(!config.instruction_template.empty());
  v1::Limits& limits = *out->mutable_limits();
  limits.set_max_input_tokens(static_cast<uint32_t>(info.max_input_tokens));
  limits.set_max_batch_tokens(static_cast<uint32_t>(info.backend.max_batch_tokens));
  limits.set_max_text_bytes(static_cast<uint64_t>(info.max_text_bytes));
  out->set_default_truncation(ToWire(info.default_truncation));
  for (const MemoryUse& use : info.backend.memory) {
    v1::DeviceMemory& memory = *out->add_device_memory();
    memory.set_purpose(use.purpose);
    memory.set_bytes(static_cast<uint64_t>(use.bytes));
  }
  out->set_device_memory_budget_bytes(static_cast<uint64_t>(info.backend.memory_budget_bytes));
}

}  // namespace quiver
