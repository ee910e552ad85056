// From what a caller sends to the ids that the model runs: prompt, special tokens, limits.
#ifndef QUIVER_ENGINE_TEXT_INPUT_BUILDER_H_
#define QUIVER_ENGINE_TEXT_INPUT_BUILDER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/text/tokenizer.h"
#include "engine/types.h"

namespace quiver {

struct TokenizedInput {
  std::vector<TokenId> ids;
  bool truncated = false;
};

// Bytes of the longest text that is looked at where inputs have up to `max_tokens` tokens. Longer
// than any text of so few tokens that is not degenerate.
int64_t MaxTextBytes(int max_tokens);

// Immutable and thread-safe. Errors are FieldErrors of "text" or "token_ids" that name the limit
// and the value.
class InputBuilder {
 public:
  struct Limits {
    // Ids of the longest input, prompt and special tokens included.
    int max_tokens = 0;
    // Bytes of the longest text that is tokenized whole.
    int64_t max_text_bytes = 0;
    // Given token ids lie in [0, vocabulary_size); 0 for the tokenizer's own size. A model's
    // embedding table may have more rows than its tokenizer has ids.
    int vocabulary_size = 0;
  };

  // `tokenizer` must outlive the builder.
  InputBuilder(const Tokenizer* tokenizer, Limits limits);

  // prefix_ids, the ids of `prompt` and `text` tokenized as one string, suffix_ids. An empty text
  // and invalid UTF-8 (byte offset within `text`) are errors.
  //
  // Over max_tokens: kNone is an error; kRight gives the first ids that fit, which is what Hugging
  // Face's truncation gives; kLeft gives the ids of `prompt` alone, then the last that fit of
  // `text` alone. A prompt that leaves no room for text is an error.
  //
  // A text longer than max_text_bytes is an error under kNone. Otherwise only the max_text_bytes at
  // its kept end are looked at (cut at a border of UTF-8). Were that to decide which ids are kept,
  // which takes a text of next to no tokens a byte, it is an error too.
  absl::StatusOr<TokenizedInput> FromText(absl::string_view prompt, absl::string_view text,
                                          Truncation truncation) const;

  // The ids as they are. None at all, or one out of range (its index), is an error; so is a length
  // over max_tokens under kNone. When cut, special tokens that the ids begin and end with stay.
  absl::StatusOr<TokenizedInput> FromIds(absl::Span<const TokenId> ids,
                                         Truncation truncation) const;

 private:
  // Cuts *ids, those of `prompt` and `text` together, to what fits beside the special tokens.
  absl::Status Shorten(absl::string_view prompt, absl::string_view text, Truncation truncation,
                       std::vector<TokenId>* ids) const;

  const Tokenizer* tokenizer_;
  Limits limits_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_INPUT_BUILDER_H_
