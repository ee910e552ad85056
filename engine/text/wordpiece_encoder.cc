// WordPiece as in BERT: words by white space and punctuation, each cut greedily into the longest
// pieces known.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/json_fields.h"
#include "engine/text/pipeline.h"
#include "engine/text/string_table.h"
#include "engine/text/unicode.h"

namespace quiver {
namespace {

class WordPieceEncoder : public TextEncoder {
 public:
  // `pieces` begin a word, `continuations` go on, without their prefix.
  WordPieceEncoder(StringTable pieces, StringTable continuations, TokenId unknown,
                   int64_t max_chars)
      : pieces_(std::move(pieces)),
        continuations_(std::move(continuations)),
        unknown_(unknown),
        max_chars_(max_chars) {}

  void Encode(absl::string_view text, std::vector<TokenId>* ids) const override {
    const char* const end = text.data() + text.size();
    const char* word = text.data();
    int64_t chars = 0;
    const auto end_word = [&](const char* word_end) {
      if (chars > 0) EncodeWord({word, static_cast<size_t>(word_end - word)}, chars, ids);
      chars = 0;
    };
    for (const char* p = text.data(); p != end;) {
      const char* const begin = p;
      const uint16_t flags = UnicodeFlags(NextCodePoint(p));
      if (flags & (kBertSpace | kBertPunctuation)) {
        end_word(begin);
        if (flags & kBertPunctuation) {
          EncodeWord({begin, static_cast<size_t>(p - begin)}, 1, ids);
        }
        word = p;
      } else {
        ++chars;
      }
    }
    end_word(end);
  }

 private:
  void EncodeWord(absl::string_view word, int64_t chars, std::vector<TokenId>* ids) const {
    if (chars > max_chars_) {
      ids->push_back(unknown_);
      return;
    }
    const size_t before = ids->size();
    const StringTable* table = &pieces_;
    while (!word.empty()) {
      size_t length = std::min(word.size(), table->longest());
      TokenId id = StringTable::kNotFound;
      for (; length > 0; --length) {
        if (length < word.size() && IsContinuationByte(word[length])) continue;
        id = table->Find(word.substr(0, length));
        if (id != StringTable::kNotFound) break;
      }
      if (length == 0) {
        ids->resize(before);
        ids->push_back(unknown_);
        return;
      }
      ids->push_back(id);
      word.remove_prefix(length);
      table = &continuations_;
    }
  }

  StringTable pieces_, continuations_;
  TokenId unknown_;
  int64_t max_chars_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TextEncoder>> CreateWordPieceEncoder(const TokenizerJson& json) {
  const auto section = json.document.find("pre_tokenizer");
  const bool has_section = section != json.document.end() && !section->is_null();
  std::string type;
  if (has_section) {
    JsonFields fields(*section, "pre_tokenizer");
    type = fields.String("type", "");
    if (!fields.status().ok()) return fields.status();
  }
  if (type != "BertPreTokenizer") {
    return absl::UnimplementedError(
        absl::StrCat("pre_tokenizer \"", type, "\" is not supported with WordPiece"));
  }
  JsonFields model(json.document["model"], "model");
  const std::string unknown = model.String("unk_token", "[UNK]");
  const std::string prefix = model.String("continuing_subword_prefix", "##");
  const int64_t max_chars = model.Integer("max_input_chars_per_word", 100);
  if (!model.status().ok()) return model.status();
  if (max_chars < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.max_input_chars_per_word ", max_chars, " is negative"));
  }

  TokenId unknown_id = -1;
  StringTable pieces, continuations;
  pieces.Reset(json.vocab.size(), json.vocab_bytes.size());
  continuations.Reset(json.vocab.size(), json.vocab_bytes.size());
  for (const auto& [token, id] : json.vocab) {
    if (token == unknown) unknown_id = id;
    if (!pieces.Insert(token, id)) {
      return absl::InvalidArgumentError(absl::StrCat("model.vocab holds \"", token, "\" twice"));
    }
    if (token.size() > prefix.size() && token.substr(0, prefix.size()) == prefix) {
      continuations.Insert(token.substr(prefix.size()), id);
    }
  }
  if (unknown_id < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.unk_token \"", unknown, "\" is not in model.vocab"));
  }
  return std::make_unique<WordPieceEncoder>(std::move(pieces), std::move(continuations), unknown_id,
                                            max_chars);
}

}  // namespace quiver
