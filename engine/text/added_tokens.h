// Tokens that are found in the text as a whole, before anything else is done with it.
#ifndef QUIVER_ENGINE_TEXT_ADDED_TOKENS_H_
#define QUIVER_ENGINE_TEXT_ADDED_TOKENS_H_

#include <array>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/text/tokenizer_json.h"
#include "engine/types.h"

namespace quiver {

struct AddedToken {
  std::string content;
  TokenId id = 0;
  // Found only between characters that are not part of a word.
  bool single_word = false;
  // Takes the white space before, after it along.
  bool strip_left = false;
  bool strip_right = false;
  // Looked for after normalization, and then normalized itself.
  bool normalized = false;
};

// Section added_tokens. INVALID_ARGUMENT if a token's id is not the one that the vocabulary, or
// else the next free number, gives it: Hugging Face `tokenizers` would silently use that one
// instead.
absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const TokenizerJson& json);

// Finds tokens in a text. Immutable and thread-safe.
class AddedTokenMatcher {
 public:
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }

  // Cuts `text` at the tokens: leftmost first, of those the longest. Calls on_text for what is
  // between them, never empty, and on_token for each, in order.
  void Split(absl::string_view text, absl::FunctionRef<void(absl::string_view)> on_text,
             absl::FunctionRef<void(TokenId)> on_token) const;

 private:
  struct Node {
    // Index of the token that ends here, or -1.
    int token = -1;
    // Sorted by byte.
    std::vector<std::pair<unsigned char, int>> children;
  };

  // Index of the longest token at the beginning of `text`, or -1.
  int LongestAt(absl::string_view text) const;

  std::vector<AddedToken> tokens_;
  // A trie of their contents; the root is node 0.
  std::vector<Node> nodes_;
  // Child of the root by first byte, or 0.
  std::array<int, 256> first_{};
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_ADDED_TOKENS_H_
