#ifndef QUIVER_ENGINE_TEXT_TOKENIZER_H_
#define QUIVER_ENGINE_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/types.h"

namespace quiver {

// Turns text into token ids, id for id what Hugging Face `tokenizers` gives for the same
// tokenizer.json with its `truncation` and `padding` sections ignored. Immutable and thread-safe
// after creation.
class Tokenizer {
 public:
  // Reads `path` (a tokenizer.json). UNIMPLEMENTED names the component that is not supported (a
  // model type, a normalizer, a split pattern); INVALID_ARGUMENT or DATA_LOSS says what is
  // malformed; NOT_FOUND if there is no such file.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& path);

  virtual ~Tokenizer() = default;

  // Appends the ids of `text` to *ids, without the post-processor's special tokens; added tokens
  // spelled in the text do become their ids. INVALID_ARGUMENT with the byte offset if `text` is not
  // valid UTF-8; *ids is then unchanged.
  virtual absl::Status Encode(absl::string_view text, std::vector<TokenId>* ids) const = 0;

  // What the post-processor puts around a single sequence, such as {[CLS]} and {[SEP]}, or {} and
  // {<|endoftext|>}.
  virtual const std::vector<TokenId>& prefix_ids() const = 0;
  virtual const std::vector<TokenId>& suffix_ids() const = 0;

  // One more than the highest id.
  virtual int vocabulary_size() const = 0;

  // Digest of everything that decides ids, for the vector space's fingerprint. Hexadecimal.
  virtual const std::string& fingerprint() const = 0;
};

// Byte offset of the first invalid UTF-8 sequence in `text`, or -1 if it is valid. Overlong forms,
// surrogates and values above U+10FFFF are invalid.
int64_t FindInvalidUtf8(absl::string_view text);

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_TOKENIZER_H_
