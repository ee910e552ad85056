// Reads tokenizer.json. The vocabulary and the merges, megabytes of a large tokenizer, go straight
// into flat arrays; the rest becomes a JSON document.
#ifndef QUIVER_ENGINE_TEXT_TOKENIZER_JSON_H_
#define QUIVER_ENGINE_TEXT_TOKENIZER_JSON_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/types.h"
#include "nlohmann/json.hpp"

namespace quiver {

struct TokenizerJson {
  struct VocabEntry {
    absl::string_view token;
    TokenId id;
  };
  // Everything but the content of model.vocab and model.merges.
  nlohmann::json document;
  // In the order of the file; ids and tokens are unique.
  std::vector<VocabEntry> vocab;
  // Both parts of each merge, in order of rank.
  std::vector<std::pair<absl::string_view, absl::string_view>> merges;
  bool has_merges = false;

  // Behind the views above.
  std::string vocab_bytes, merge_bytes;
};

// NOT_FOUND, DATA_LOSS (not JSON, at which byte), or INVALID_ARGUMENT (JSON, but not a
// tokenizer's). Messages do not name the file.
absl::StatusOr<std::unique_ptr<TokenizerJson>> ReadTokenizerJson(const std::string& path);
absl::StatusOr<std::unique_ptr<TokenizerJson>> ParseTokenizerJson(absl::string_view text);

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_TOKENIZER_JSON_H_
