#include "engine/text/post_processor.h"

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/text/json_fields.h"

namespace quiver {
namespace {

using nlohmann::json;

absl::StatusOr<TokenId> ReadId(const json& value, const std::string& path) {
  if (!value.is_number_integer() || value.get<int64_t>() < 0 ||
      value.get<int64_t>() >= std::numeric_limits<TokenId>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a token id"));
  }
  return static_cast<TokenId>(value.get<int64_t>());
}

// Appends the ids of the special token `name` as TemplateProcessing lists them.
absl::Status AppendSpecial(const json* specials, const std::string& name,
                           std::vector<TokenId>* out) {
  const std::string path = absl::StrCat("post_processor.special_tokens[\"", name, "\"]");
  if (specials == nullptr || !specials->is_object() || !specials->contains(name)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is missing"));
  }
  JsonFields fields((*specials)[name], path);
  const json* ids = fields.Array("ids");
  if (!fields.status().ok()) return fields.status();
  if (ids == nullptr) return absl::InvalidArgumentError(absl::StrCat(path, ".ids is missing"));
  for (const json& value : *ids) {
    absl::StatusOr<TokenId> id = ReadId(value, path + ".ids");
    if (!id.ok()) return id.status();
    out->push_back(*id);
  }
  return absl::OkStatus();
}

absl::StatusOr<SpecialTokens> ReadTemplate(JsonFields* fields) {
  SpecialTokens result;
  const json* pieces = fields->Array("single");
  if (!fields->status().ok()) return fields->status();
  if (pieces == nullptr) {
    return absl::InvalidArgumentError("post_processor.single is missing");
  }
  const json* specials = fields->Find("special_tokens");
  int sequences = 0;
  for (const json& piece : *pieces) {
    JsonFields parts(piece, "post_processor.single");
    const json* special = parts.Find("SpecialToken");
    const json* sequence = parts.Find("Sequence");
    if ((special == nullptr) == (sequence == nullptr)) {
      return absl::InvalidArgumentError(
          "post_processor.single holds something that is neither SpecialToken nor Sequence");
    }
    JsonFields inner(special != nullptr ? *special : *sequence, "post_processor.single");
    const std::string id = inner.String("id", "");
    if (!inner.status().ok()) return inner.status();
    if (sequence != nullptr) {
      if (id != "A" || ++sequences > 1) {
        return absl::UnimplementedError(
            "post_processor.single with more than the sequence A is not supported");
      }
      continue;
    }
    absl::Status status =
        AppendSpecial(specials, id, sequences == 0 ? &result.prefix : &result.suffix);
    if (!status.ok()) return status;
  }
  if (sequences == 0) {
    return absl::UnimplementedError("post_processor.single without the sequence A");
  }
  return result;
}

// BertProcessing and RobertaProcessing: cls and sep are ["[CLS]", 101] each.
absl::StatusOr<SpecialTokens> ReadClsSep(JsonFields* fields) {
  SpecialTokens result;
  for (const char* name : {"cls", "sep"}) {
    const std::string path = absl::StrCat("post_processor.", name);
    const json* pair = fields->Array(name);
    if (pair == nullptr || pair->size() != 2) {
      return absl::InvalidArgumentError(absl::StrCat(path, " is not [token, id]"));
    }
    absl::StatusOr<TokenId> id = ReadId((*pair)[1], path);
    if (!id.ok()) return id.status();
    (*name == 'c' ? result.prefix : result.suffix).push_back(*id);
  }
  return result;
}

}  // namespace

absl::StatusOr<SpecialTokens> ReadPostProcessor(const json& section) {
  if (section.is_null()) return SpecialTokens();
  JsonFields fields(section, "post_processor");
  const std::string type = fields.String("type", "");
  if (!fields.status().ok()) return fields.status();
  if (type == "ByteLevel") return SpecialTokens();
  if (type == "TemplateProcessing") return ReadTemplate(&fields);
  if (type == "BertProcessing" || type == "RobertaProcessing") return ReadClsSep(&fields);
  if (type == "Sequence") {
    const json* parts = fields.Array("processors");
    if (parts == nullptr) {
      return absl::InvalidArgumentError("post_processor.processors is not an array");
    }
    SpecialTokens result;
    for (const json& part : *parts) {
      absl::StatusOr<SpecialTokens> outer = ReadPostProcessor(part);
      if (!outer.ok()) return outer.status();
      result.prefix.insert(result.prefix.begin(), outer->prefix.begin(), outer->prefix.end());
      result.suffix.insert(result.suffix.end(), outer->suffix.begin(), outer->suffix.end());
    }
    return result;
  }
  return absl::UnimplementedError(absl::StrCat("post_processor \"", type, "\" is not supported"));
}

}  // namespace quiver
