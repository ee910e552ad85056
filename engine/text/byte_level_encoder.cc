// Byte-level BPE: the text is split by a pattern, each piece is merged from its bytes.
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/bpe_model.h"
#include "engine/text/json_fields.h"
#include "engine/text/pipeline.h"
#include "engine/text/split_pattern.h"

namespace quiver {
namespace {

using nlohmann::json;

struct PreTokenizer {
  SplitPattern pattern = SplitPattern::kNone;
  // ByteLevel gives what does not begin with a space one: the text if it splits itself, else each
  // piece that it gets.
  bool space_before_text = false;
  bool space_before_pieces = false;
};

absl::Status ReadSplit(JsonFields* fields, PreTokenizer* out) {
  const std::string behavior = fields->String("behavior", "");
  const bool invert = fields->Bool("invert", false);
  const json* pattern = fields->Find("pattern");
  if (!fields->status().ok()) return fields->status();
  if (pattern == nullptr) {
    return absl::InvalidArgumentError("pre_tokenizer Split has no pattern");
  }
  JsonFields kinds(*pattern, "pre_tokenizer.pattern");
  const std::string regex = kinds.String("Regex", "");
  if (!kinds.status().ok()) return kinds.status();
  if (!FindSplitPattern(regex, &out->pattern)) {
    return absl::UnimplementedError(
        absl::StrCat("pre_tokenizer Split by the pattern ", pattern->dump(), " is not supported"));
  }
  // Every pattern known covers the whole text, so that these two are the same.
  if ((behavior == "Isolated" && !invert) || (behavior == "Removed" && invert)) {
    return absl::OkStatus();
  }
  return absl::UnimplementedError(absl::StrCat("pre_tokenizer Split with behavior \"", behavior,
                                               "\"", invert ? ", inverted," : "",
                                               " is not supported"));
}

absl::Status ReadByteLevel(JsonFields* fields, PreTokenizer* out) {
  const bool use_regex = fields->Bool("use_regex", true);
  const bool add_prefix_space = fields->Bool("add_prefix_space", true);
  if (!fields->status().ok()) return fields->status();
  if (use_regex && out->pattern != SplitPattern::kNone) {
    return absl::UnimplementedError("pre_tokenizer ByteLevel with use_regex after a Split");
  }
  if (use_regex) out->pattern = SplitPattern::kGpt2;
  (use_regex ? out->space_before_text : out->space_before_pieces) = add_prefix_space;
  return absl::OkStatus();
}

// ByteLevel, or a Sequence of one Split and ByteLevel.
absl::StatusOr<PreTokenizer> ReadPreTokenizer(const json& section) {
  PreTokenizer result;
  JsonFields fields(section, "pre_tokenizer");
  std::string type = fields.String("type", "");
  if (!fields.status().ok()) return fields.status();
  std::vector<const json*> steps;
  if (type == "Sequence") {
    const json* parts = fields.Array("pretokenizers");
    if (parts == nullptr) {
      return absl::InvalidArgumentError("pre_tokenizer.pretokenizers is not an array");
    }
    for (const json& part : *parts) steps.push_back(&part);
  } else {
    steps.push_back(&section);
  }
  bool has_byte_level = false;
  for (const json* step : steps) {
    JsonFields parts(*step, "pre_tokenizer");
    type = parts.String("type", "");
    if (!parts.status().ok()) return parts.status();
    absl::Status status;
    if (type == "Split" && !has_byte_level && result.pattern == SplitPattern::kNone) {
      status = ReadSplit(&parts, &result);
    } else if (type == "ByteLevel" && !has_byte_level) {
      status = ReadByteLevel(&parts, &result);
      has_byte_level = true;
    } else {
      return absl::UnimplementedError(
          absl::StrCat("pre_tokenizer \"", type, "\" is not supported at its place with BPE"));
    }
    if (!status.ok()) return status;
  }
  if (!has_byte_level) {
    return absl::UnimplementedError("BPE without a ByteLevel pre_tokenizer is not supported");
  }
  return result;
}

class ByteLevelEncoder : public TextEncoder {
 public:
  ByteLevelEncoder(PreTokenizer pre_tokenizer, std::unique_ptr<BpeModel> model)
      : pre_tokenizer_(pre_tokenizer), model_(std::move(model)) {}

  void Encode(absl::string_view text, std::vector<TokenId>* ids) const override {
    std::string spaced;
    const char* p = text.data();
    const char* end = p + text.size();
    if (pre_tokenizer_.space_before_text && *p != ' ') {
      spaced = absl::StrCat(" ", text);
      p = spaced.data();
      end = p + spaced.size();
    }
    while (p != end) {
      const char* next = MatchSplit(pre_tokenizer_.pattern, p, end);
      absl::string_view piece(p, static_cast<size_t>(next - p));
      if (pre_tokenizer_.space_before_pieces && *p != ' ')
        piece = spaced = absl::StrCat(" ", piece);
      model_->Encode(piece, ids);
      p = next;
    }
  }

 private:
  PreTokenizer pre_tokenizer_;
  std::unique_ptr<BpeModel> model_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TextEncoder>> CreateByteLevelEncoder(
    const TokenizerJson& tokenizer) {
  const auto section = tokenizer.document.find("pre_tokenizer");
  if (section == tokenizer.document.end() || section->is_null()) {
    return absl::UnimplementedError("BPE without a ByteLevel pre_tokenizer is not supported");
  }
  auto pre_tokenizer = ReadPreTokenizer(*section);
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  auto model = BpeModel::Create(tokenizer);
  if (!model.ok()) return model.status();
  return std::make_unique<ByteLevelEncoder>(*pre_tokenizer, *std::move(model));
}

}  // namespace quiver
