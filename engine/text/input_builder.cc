#include "engine/text/input_builder.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "engine/text/unicode.h"

namespace quiver {
namespace {

// Ids next to a cut that another text behind it may change: a cut decides over the piece of the
// split pattern that it lies in, and inside of a long piece over the merges next to it.
constexpr size_t kIdsDecidedByCut = 64;

// English has four to five bytes a token.
constexpr int64_t kMaxBytesPerToken = 32;
constexpr int64_t kMinTextBytes = 64 * 1024;

// The `limit` bytes of `text` at its kept end, less those of a split character.
absl::string_view CutBytes(absl::string_view text, int64_t limit, Truncation truncation) {
  size_t size = static_cast<size_t>(limit);
  if (truncation == Truncation::kRight) {
    while (size > 0 && IsContinuationByte(text[size])) --size;
    return text.substr(0, size);
  }
  size_t begin = text.size() - size;
  while (begin < text.size() && IsContinuationByte(text[begin])) ++begin;
  return text.substr(begin);
}

bool StartsWith(absl::Span<const TokenId> ids, absl::Span<const TokenId> prefix) {
  return ids.size() >= prefix.size() && ids.first(prefix.size()) == prefix;
}

bool EndsWith(absl::Span<const TokenId> ids, absl::Span<const TokenId> suffix) {
  return ids.size() >= suffix.size() && ids.last(suffix.size()) == suffix;
}

}  // namespace

int64_t MaxTextBytes(int max_tokens) {
  return std::max(kMinTextBytes, kMaxBytesPerToken * max_tokens);
}

InputBuilder::InputBuilder(const Tokenizer* tokenizer, Limits limits)
    : tokenizer_(tokenizer), limits_(limits) {
  if (limits_.vocabulary_size == 0) limits_.vocabulary_size = tokenizer->vocabulary_size();
}

absl::StatusOr<TokenizedInput> InputBuilder::FromText(absl::string_view prompt,
                                                      absl::string_view text,
                                                      Truncation truncation) const {
  if (text.empty()) return FieldError("text", "must not be empty");
  const bool cut = static_cast<int64_t>(text.size()) > limits_.max_text_bytes;
  if (cut && truncation == Truncation::kNone) {
    return FieldError("text",
                      absl::StrCat("must be at most ", limits_.max_text_bytes, " bytes; it has ",
                                   text.size(), " (shorten it or ask for truncation)"));
  }
  const int64_t invalid = FindInvalidUtf8(text);
  if (invalid >= 0) {
    return FieldError("text", absl::StrCat("invalid UTF-8 at byte ", invalid));
  }
  const absl::string_view kept = cut ? CutBytes(text, limits_.max_text_bytes, truncation) : text;

  std::vector<TokenId> ids;
  const absl::Status status = prompt.empty() ? tokenizer_->Encode(kept, &ids)
                                             : tokenizer_->Encode(absl::StrCat(prompt, kept), &ids);
  if (!status.ok()) return status;

  const std::vector<TokenId>& prefix = tokenizer_->prefix_ids();
  const std::vector<TokenId>& suffix = tokenizer_->suffix_ids();
  const size_t special = prefix.size() + suffix.size();
  const size_t limit = static_cast<size_t>(limits_.max_tokens);
  if (cut && ids.size() + special < limit + kIdsDecidedByCut) {
    return FieldError(
        "text", absl::StrCat("must be at most ", limits_.max_text_bytes, " bytes; it has ",
                             text.size(), ", and so few tokens within the limit (", ids.size(),
                             ") that cutting it there would change the ids kept"));
  }

  TokenizedInput input;
  if (ids.size() + special > limit) {
    if (truncation == Truncation::kNone) {
      return FieldError(
          "text",
          absl::StrCat("must be at most ", limit, " tokens with prompt and special tokens; it has ",
                       ids.size() + special, " (shorten it or ask for truncation)"));
    }
    absl::Status shortened = Shorten(prompt, kept, truncation, &ids);
    if (!shortened.ok()) return shortened;
    input.truncated = true;
  }
  input.ids.reserve(ids.size() + special);
  input.ids.insert(input.ids.end(), prefix.begin(), prefix.end());
  input.ids.insert(input.ids.end(), ids.begin(), ids.end());
  input.ids.insert(input.ids.end(), suffix.begin(), suffix.end());
  input.truncated |= cut;
  if (input.ids.empty()) return FieldError("text", "must have at least 1 token; it has 0");
  return input;
}

absl::Status InputBuilder::Shorten(absl::string_view prompt, absl::string_view text,
                                   Truncation truncation, std::vector<TokenId>* ids) const {
  const size_t special = tokenizer_->prefix_ids().size() + tokenizer_->suffix_ids().size();
  const size_t limit = static_cast<size_t>(limits_.max_tokens);
  std::vector<TokenId> prompt_ids;
  if (!prompt.empty()) {
    const absl::Status status = tokenizer_->Encode(prompt, &prompt_ids);
    if (!status.ok()) return status;
  }
  if (prompt_ids.size() + special >= limit) {
    return FieldError("text",
                      absl::StrCat("has no room: prompt and special tokens take ",
                                   prompt_ids.size() + special, " tokens of at most ", limit));
  }
  const size_t room = limit - special;
  if (truncation == Truncation::kRight) {
    ids->resize(room);
    return absl::OkStatus();
  }
  if (!prompt_ids.empty()) {
    ids->clear();
    const absl::Status status = tokenizer_->Encode(text, ids);
    if (!status.ok()) return status;
  }
  const size_t tail = std::min(room - prompt_ids.size(), ids->size());
  prompt_ids.insert(prompt_ids.end(), ids->end() - static_cast<ptrdiff_t>(tail), ids->end());
  *ids = std::move(prompt_ids);
  return absl::OkStatus();
}

absl::StatusOr<TokenizedInput> InputBuilder::FromIds(absl::Span<const TokenId> ids,
                                                     Truncation truncation) const {
  if (ids.empty()) return FieldError("token_ids", "must not be empty");
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= limits_.vocabulary_size) {
      return FieldError("token_ids", absl::StrCat("must be from 0 to ", limits_.vocabulary_size - 1,
                                                  "; the id at index ", i, " is ", ids[i]));
    }
  }
  TokenizedInput input;
  const size_t limit = static_cast<size_t>(limits_.max_tokens);
  if (ids.size() <= limit) {
    input.ids.assign(ids.begin(), ids.end());
    return input;
  }
  if (truncation == Truncation::kNone) {
    return FieldError("token_ids",
                      absl::StrCat("must be at most ", limit, "; there are ", ids.size(),
                                   " (shorten them or ask for truncation)"));
  }
  absl::Span<const TokenId> prefix = tokenizer_->prefix_ids();
  absl::Span<const TokenId> suffix = tokenizer_->suffix_ids();
  if (!StartsWith(ids, prefix)) prefix = {};
  if (!EndsWith(ids.subspan(prefix.size()), suffix)) suffix = {};
  if (prefix.size() + suffix.size() >= limit) {
    return FieldError("token_ids",
                      absl::StrCat("have no room: their special tokens take ",
                                   prefix.size() + suffix.size(), " of at most ", limit));
  }
  absl::Span<const TokenId> body = ids.subspan(prefix.size());
  body.remove_suffix(suffix.size());
  const size_t room = limit - prefix.size() - suffix.size();
  body = truncation == Truncation::kRight ? body.first(room) : body.last(room);
  input.ids.assign(prefix.begin(), prefix.end());
  input.ids.insert(input.ids.end(), body.begin(), body.end());
  input.ids.insert(input.ids.end(), suffix.begin(), suffix.end());
  input.truncated = true;
  return input;
}

}  // namespace quiver
