// What all kinds of tokenizers share: added tokens around and after the normalizer, special tokens,
// the fingerprint. A kind adds how a normalized piece of text becomes ids.
#ifndef QUIVER_ENGINE_TEXT_PIPELINE_H_
#define QUIVER_ENGINE_TEXT_PIPELINE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/text/added_tokens.h"
#include "engine/text/normalizer.h"
#include "engine/text/post_processor.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_json.h"
#include "engine/types.h"

namespace quiver {

// Splits normalized text and turns it into ids. Immutable and thread-safe.
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;
  // `text` is not empty, and valid UTF-8.
  virtual void Encode(absl::string_view text, std::vector<TokenId>* ids) const = 0;
};

// Model types "BPE" with a ByteLevel pre-tokenizer, and "WordPiece" with BertPreTokenizer.
absl::StatusOr<std::unique_ptr<TextEncoder>> CreateByteLevelEncoder(const TokenizerJson& json);
absl::StatusOr<std::unique_ptr<TextEncoder>> CreateWordPieceEncoder(const TokenizerJson& json);

class PipelineTokenizer : public Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const TokenizerJson& json);

  absl::Status Encode(absl::string_view text, std::vector<TokenId>* ids) const override;
  const std::vector<TokenId>& prefix_ids() const override { return special_.prefix; }
  const std::vector<TokenId>& suffix_ids() const override { return special_.suffix; }
  int vocabulary_size() const override { return vocabulary_size_; }
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  PipelineTokenizer(Normalizer normalizer, std::vector<AddedToken> raw,
                    std::vector<AddedToken> normalized, std::unique_ptr<TextEncoder> encoder,
                    SpecialTokens special);

  Normalizer normalizer_;
  AddedTokenMatcher raw_tokens_;
  AddedTokenMatcher normalized_tokens_;
  std::unique_ptr<TextEncoder> encoder_;
  SpecialTokens special_;
  int vocabulary_size_ = 0;
  std::string fingerprint_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_PIPELINE_H_
