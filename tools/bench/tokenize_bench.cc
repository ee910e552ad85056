// tokenize_bench TOKENIZER_JSON: the C++ side of tokenize.py. Prints the seconds that loading took; then
// for each line of stdin, the path of a file with one JSON string a line, tokenizes all of them on one
// thread and prints the seconds that took and the number of ids.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"
#include "nlohmann/json.hpp"

namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<std::string> ReadTexts(const std::string& path) {
  std::vector<std::string> texts;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) texts.push_back(nlohmann::json::parse(line));
  return texts;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: tokenize_bench TOKENIZER_JSON\n");
    return 2;
  }
  Clock::time_point start = Clock::now();
  const auto tokenizer = quiver::Tokenizer::Load(argv[1]);
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  std::printf("%.6f\n", SecondsSince(start));
  std::fflush(stdout);

  std::map<std::string, std::vector<std::string>> texts;
  std::vector<quiver::TokenId> ids;
  for (std::string path; std::getline(std::cin, path);) {
    if (!texts.contains(path)) texts[path] = ReadTexts(path);
    size_t count = 0;
    start = Clock::now();
    for (const std::string& text : texts[path]) {
      ids.clear();
      if (!(*tokenizer)->Encode(text, &ids).ok()) return 1;
      count += ids.size();
    }
    std::printf("%.9f %zu\n", SecondsSince(start), count);
    std::fflush(stdout);
  }
  return 0;
}
