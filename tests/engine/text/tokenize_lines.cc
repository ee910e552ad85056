// tokenize_lines TOKENIZER_JSON: for each line of stdin, a JSON string, prints the ids with special
// tokens as a JSON array on a line. Made for comparisons with other tokenizers.
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"
#include "nlohmann/json.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tokenize_lines TOKENIZER_JSON < LINES\n");
    return 2;
  }
  auto tokenizer = quiver::Tokenizer::Load(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  std::ios::sync_with_stdio(false);
  std::string line;
  while (std::getline(std::cin, line)) {
    const nlohmann::json text = nlohmann::json::parse(line, nullptr, false);
    if (!text.is_string()) {
      std::fprintf(stderr, "not a JSON string: %s\n", line.c_str());
      return 1;
    }
    std::vector<quiver::TokenId> ids = (*tokenizer)->prefix_ids();
    const absl::Status status = (*tokenizer)->Encode(text.get_ref<const std::string&>(), &ids);
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      return 1;
    }
    const auto& suffix = (*tokenizer)->suffix_ids();
    ids.insert(ids.end(), suffix.begin(), suffix.end());
    std::cout << '[';
    for (size_t i = 0; i < ids.size(); ++i) {
      if (i > 0) std::cout << ',';
      std::cout << ids[i];
    }
    std::cout << "]\n";
  }
  return 0;
}
