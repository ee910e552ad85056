#include "engine/text/added_tokens.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "engine/text/json_fields.h"
#include "engine/text/unicode.h"

namespace quiver {

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const TokenizerJson& json) {
  std::vector<AddedToken> tokens;
  JsonFields root(json.document, "tokenizer.json");
  const nlohmann::json* array = root.Array("added_tokens");
  if (!root.status().ok()) return root.status();
  if (array == nullptr) return tokens;

  for (const nlohmann::json& item : *array) {
    JsonFields fields(item, absl::StrCat("added_tokens[", tokens.size(), "]"));
    AddedToken token;
    token.content = fields.String("content", "");
    const int64_t id = fields.Integer("id", -1);
    token.single_word = fields.Bool("single_word", false);
    token.strip_left = fields.Bool("lstrip", false);
    token.strip_right = fields.Bool("rstrip", false);
    token.normalized = fields.Bool("normalized", !fields.Bool("special", false));
    if (!fields.status().ok()) return fields.status();
    if (token.content.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(fields.path(), ".content is empty"));
    }
    if (id < 0 || id >= std::numeric_limits<TokenId>::max()) {
      return absl::InvalidArgumentError(absl::StrCat(fields.path(), ".id ", id, " is not in [0, ",
                                                     std::numeric_limits<TokenId>::max() - 1, "]"));
    }
    token.id = static_cast<TokenId>(id);
    tokens.push_back(std::move(token));
  }

  absl::flat_hash_map<absl::string_view, TokenId> known;
  for (const AddedToken& token : tokens) {
    if (!known.emplace(token.content, -1).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("added_tokens holds \"", token.content, "\" twice"));
    }
  }
  for (const auto& entry : json.vocab) {
    const auto found = known.find(entry.token);
    if (found != known.end()) found->second = entry.id;
  }
  int64_t next = static_cast<int64_t>(json.vocab.size());
  for (const AddedToken& token : tokens) {
    const TokenId in_vocab = known[token.content];
    const int64_t expected = in_vocab >= 0 ? in_vocab : next;
    if (token.id != expected) {
      return absl::InvalidArgumentError(absl::StrCat(
          "added_tokens gives \"", token.content, "\" the id ", token.id, ", but ",
          in_vocab >= 0 ? "model.vocab has it as " : "the next free id is ", expected));
    }
    next = std::max<int64_t>(next, expected + 1);
  }
  return tokens;
}

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  nodes_.emplace_back();
  for (size_t i = 0; i < tokens_.size(); ++i) {
    int node = 0;
    for (const char c : tokens_[i].content) {
      const unsigned char byte = static_cast<unsigned char>(c);
      auto& children = nodes_[node].children;
      auto child = std::lower_bound(children.begin(), children.end(), std::pair(byte, 0));
      if (child == children.end() || child->first != byte) {
        const int created = static_cast<int>(nodes_.size());
        children.insert(child, {byte, created});
        nodes_.emplace_back();
        node = created;
      } else {
        node = child->second;
      }
    }
    if (nodes_[node].token < 0) nodes_[node].token = static_cast<int>(i);
  }
  for (const auto& [byte, child] : nodes_[0].children) first_[byte] = child;
}

int AddedTokenMatcher::LongestAt(absl::string_view text) const {
  int node = first_[static_cast<unsigned char>(text[0])];
  int longest = -1;
  for (size_t i = 1; node != 0; ++i) {
    if (nodes_[node].token >= 0) longest = nodes_[node].token;
    if (i == text.size()) break;
    const unsigned char byte = static_cast<unsigned char>(text[i]);
    const auto& children = nodes_[node].children;
    const auto child = std::lower_bound(children.begin(), children.end(), std::pair(byte, 0));
    node = child != children.end() && child->first == byte ? child->second : 0;
  }
  return longest;
}

void AddedTokenMatcher::Split(absl::string_view text,
                              absl::FunctionRef<void(absl::string_view)> on_text,
                              absl::FunctionRef<void(TokenId)> on_token) const {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  const auto is_word = [](uint32_t c) { return (UnicodeFlags(c) & kWord) != 0; };
  const char* done = begin;
  const char* p = begin;
  while (p != end) {
    if (first_[static_cast<unsigned char>(*p)] == 0) {
      ++p;
      continue;
    }
    const int found = LongestAt(absl::string_view(p, static_cast<size_t>(end - p)));
    if (found < 0) {
      ++p;
      continue;
    }
    const AddedToken& token = tokens_[found];
    const char* start = p;
    const char* stop = p + token.content.size();
    // One that is refused here still hides those that begin within it.
    p = stop;
    if (token.single_word) {
      const char* next = stop;
      if (start != begin && is_word(PreviousCodePoint(start))) continue;
      if (stop != end && is_word(NextCodePoint(next))) continue;
    }
    if (token.strip_left) {
      while (start > done) {
        if (!(UnicodeFlags(PreviousCodePoint(start)) & kAddedTokenSpace)) break;
        do {
          --start;
        } while (IsContinuationByte(*start));
      }
    }
    if (token.strip_right) {
      for (const char* next = stop; next != end; stop = next) {
        if (!(UnicodeFlags(NextCodePoint(next)) & kAddedTokenSpace)) break;
      }
    }
    if (done < start) on_text(absl::string_view(done, static_cast<size_t>(start - done)));
    on_token(token.id);
    done = stop;
  }
  if (done < end) on_text(absl::string_view(done, static_cast<size_t>(end - done)));
}

}  // namespace quiver
