// tokenize_lines TOKENIZER_JSON [MAX_TOKENS]: for each line of stdin, a JSON string, prints the ids
// with special tokens as a JSON array on a line, cut on the right to MAX_TOKENS. Made for
// comparisons with other tokenizers.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/input_builder.h"
#include "engine/text/tokenizer.h"
#include "nlohmann/json.hpp"

namespace {

// Of an empty text too, which InputBuilder refuses, unless it is cut.
absl::StatusOr<std::vector<quiver::TokenId>> Ids(const quiver::Tokenizer& tokenizer,
                                                 const std::string& text, int max_tokens) {
  if (max_tokens > 0) {
    const quiver::InputBuilder builder(&tokenizer,
                                       {.max_tokens = max_tokens, .max_text_bytes = 1 << 30});
    auto input = builder.FromText("", text, quiver::Truncation::kRight);
    if (!input.ok()) return input.status();
    return input->ids;
  }
  std::vector<quiver::TokenId> ids = tokenizer.prefix_ids();
  const absl::Status status = tokenizer.Encode(text, &ids);
  if (!status.ok()) return status;
  ids.insert(ids.end(), tokenizer.suffix_ids().begin(), tokenizer.suffix_ids().end());
  return ids;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "usage: tokenize_lines TOKENIZER_JSON [MAX_TOKENS] < LINES\n");
    return 2;
  }
  auto tokenizer = quiver::Tokenizer::Load(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  const int max_tokens = argc == 3 ? std::atoi(argv[2]) : 0;
  std::ios::sync_with_stdio(false);
  std::string line;
  while (std::getline(std::cin, line)) {
    const nlohmann::json text = nlohmann::json::parse(line, nullptr, false);
    if (!text.is_string()) {
      std::fprintf(stderr, "not a JSON string: %s\n", line.c_str());
      return 1;
    }
    absl::StatusOr<std::vector<quiver::TokenId>> ids =
        Ids(**tokenizer, text.get_ref<const std::string&>(), max_tokens);
    if (!ids.ok()) {
      std::fprintf(stderr, "%s\n", ids.status().ToString().c_str());
      return 1;
    }
    std::cout << '[';
    for (size_t i = 0; i < ids->size(); ++i) {
      if (i > 0) std::cout << ',';
      std::cout << (*ids)[i];
    }
    std::cout << "]\n";
  }
  return 0;
}
