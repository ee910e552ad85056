#include "engine/text/pipeline.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/json_fields.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace quiver {
namespace {

// Raised when the ids of some text change though the tokenizer.json does not: the tables of
// unicode_data.cc, or a mistake put right.
constexpr char kVersion[] = "quiver tokenizer 1";

// Digest of all sections that decide ids, in one order and spelling whatever the file's is.
std::string Fingerprint(const TokenizerJson& json) {
  XXH3_state_t state;
  XXH3_128bits_reset(&state);
  const auto add = [&](absl::string_view bytes) {
    const uint64_t size = bytes.size();
    XXH3_128bits_update(&state, &size, sizeof(size));
    XXH3_128bits_update(&state, bytes.data(), bytes.size());
  };
  add(kVersion);
  for (const char* section :
       {"added_tokens", "model", "normalizer", "post_processor", "pre_tokenizer"}) {
    const auto found = json.document.find(section);
    add(found == json.document.end() ? "null" : found->dump());
  }
  std::vector<TokenizerJson::VocabEntry> vocab = json.vocab;
  std::sort(vocab.begin(), vocab.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  for (const auto& entry : vocab) {
    add(entry.token);
    XXH3_128bits_update(&state, &entry.id, sizeof(entry.id));
  }
  for (const auto& [left, right] : json.merges) {
    add(left);
    add(right);
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(&state);
  return absl::StrCat(absl::Hex(hash.high64, absl::kZeroPad16),
                      absl::Hex(hash.low64, absl::kZeroPad16));
}

absl::StatusOr<std::unique_ptr<TextEncoder>> CreateEncoder(const TokenizerJson& json) {
  JsonFields model(json.document["model"], "model");
  const std::string type = model.String("type", "");
  if (!model.status().ok()) return model.status();
  if (type == "BPE") return CreateByteLevelEncoder(json);
  if (type == "WordPiece") return CreateWordPieceEncoder(json);
  return absl::UnimplementedError(
      absl::StrCat("model.type \"", type, "\" is not supported; BPE and WordPiece are"));
}

const nlohmann::json& Section(const TokenizerJson& json, const char* name) {
  static const nlohmann::json* const kNull = new nlohmann::json();
  const auto found = json.document.find(name);
  return found == json.document.end() ? *kNull : *found;
}

}  // namespace

PipelineTokenizer::PipelineTokenizer(Normalizer normalizer, std::vector<AddedToken> raw,
                                     std::vector<AddedToken> normalized,
                                     std::unique_ptr<TextEncoder> encoder, SpecialTokens special)
    : normalizer_(normalizer),
      raw_tokens_(std::move(raw)),
      normalized_tokens_(std::move(normalized)),
      encoder_(std::move(encoder)),
      special_(std::move(special)) {}

absl::StatusOr<std::unique_ptr<Tokenizer>> PipelineTokenizer::Create(const TokenizerJson& json) {
  // The model first: of a file of another kind that is what should be named.
  auto encoder = CreateEncoder(json);
  if (!encoder.ok()) return encoder.status();
  auto normalizer = Normalizer::Create(Section(json, "normalizer"));
  if (!normalizer.ok()) return normalizer.status();
  auto special = ReadPostProcessor(Section(json, "post_processor"));
  if (!special.ok()) return special.status();
  auto added = ReadAddedTokens(json);
  if (!added.ok()) return added.status();

  TokenId highest = -1;
  for (const auto& entry : json.vocab) highest = std::max(highest, entry.id);
  std::vector<AddedToken> raw, normalized;
  std::string scratch;
  for (AddedToken& token : *added) {
    highest = std::max(highest, token.id);
    if (!token.normalized) {
      raw.push_back(std::move(token));
      continue;
    }
    const std::string content(normalizer->Normalize(token.content, &scratch));
    if (content.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("added_tokens: nothing is left of \"", token.content, "\" when normalized"));
    }
    token.content = content;
    normalized.push_back(std::move(token));
  }
  for (const auto* ids : {&special->prefix, &special->suffix}) {
    for (const TokenId id : *ids) {
      if (id > highest) {
        return absl::InvalidArgumentError(
            absl::StrCat("post_processor adds the id ", id, ", but the highest id is ", highest));
      }
    }
  }
  std::unique_ptr<PipelineTokenizer> tokenizer(
      new PipelineTokenizer(*normalizer, std::move(raw), std::move(normalized), *std::move(encoder),
                            *std::move(special)));
  tokenizer->vocabulary_size_ = highest + 1;
  tokenizer->fingerprint_ = Fingerprint(json);
  return tokenizer;
}

absl::Status PipelineTokenizer::Encode(absl::string_view text, std::vector<TokenId>* ids) const {
  const int64_t invalid = FindInvalidUtf8(text);
  if (invalid >= 0) {
    return absl::InvalidArgumentError(absl::StrCat("invalid UTF-8 at byte ", invalid));
  }
  std::string scratch;
  const auto on_token = [&](TokenId id) { ids->push_back(id); };
  raw_tokens_.Split(
      text,
      [&](absl::string_view part) {
        const absl::string_view normal = normalizer_.Normalize(part, &scratch);
        normalized_tokens_.Split(
            normal, [&](absl::string_view piece) { encoder_->Encode(piece, ids); }, on_token);
      },
      on_token);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& path) {
  const auto with_path = [&](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  };
  auto json = ReadTokenizerJson(path);
  if (!json.ok()) return with_path(json.status());
  auto tokenizer = PipelineTokenizer::Create(**json);
  if (!tokenizer.ok()) return with_path(tokenizer.status());
  return tokenizer;
}

}  // namespace quiver
