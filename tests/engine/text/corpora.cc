#include "tests/engine/text/corpora.h"

#include <cstdint>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

#include "engine/text/unicode.h"
#include "nlohmann/json.hpp"

namespace quiver {
namespace {

using namespace std::string_literals;

constexpr int kNumRandom = 10000;

const std::string kTelling[] = {
    "'"s,          "s"s,
    "S"s,          "\u017f"s,
    "t"s,          "re"s,
    "RE"s,         "ve"s,
    "m"s,          "ll"s,
    "d"s,          "a"s,
    "A"s,          " "s,
    "  "s,         "\t"s,
    "\n"s,         "\r"s,
    "\r\n"s,       "\u00a0"s,
    "\u3000"s,     "\u0085"s,
    "\u2028"s,     "\u200b"s,
    "\u200d"s,     "\ufeff"s,
    "\x00"s,       "\x7f"s,
    "\ufffd"s,     "1"s,
    "23"s,         "\u0663"s,
    "\u00b2"s,     "\u2167"s,
    "\u00bd"s,     "."s,
    ","s,          "!?"s,
    "-"s,          "_"s,
    "\u2014"s,     "\u3002"s,
    "\uff0c"s,     "\u00e9"s,
    "e\u0301"s,    "e\u0323\u0302"s,
    "\u0345"s,     "\u0334"s,
    "\u05b0"s,     "\u0f71\u0f72"s,
    "\u3099"s,     "\u304b"s,
    "\uac00"s,     "\u1100"s,
    "\u1161"s,     "\u11a8"s,
    "\u11a7"s,     "\uf900"s,
    "\u4eba"s,     "\u751f"s,
    "\u0130"s,     "\u0131"s,
    "\u03a3"s,     "\u03c2"s,
    "\u00df"s,     "\u1e9e"s,
    "\u0149"s,     "\u01c5"s,
    "\U0001f600"s, "\U0001f44d\U0001f3fd"s,
    "\U00020000"s, "\U0001d165"s,
    "\U0001d15e"s, "\u07ff"s,
    "\u0800"s,     "\uffff"s,
    "\U00010000"s, "\U0010ffff"s,
    "<|im_end|>"s, "<|endoftext|>"s,
    "<think>"s,    "[MASK]"s,
    "[SEP]"s,      "[UNK]"s,
    "##a"s,
};
constexpr std::pair<uint32_t, uint32_t> kRanges[] = {
    {0x20, 0x7F},     {0x00, 0x250},    {0x300, 0x370},   {0x370, 0x600}, {0x900, 0x1200},
    {0x3040, 0x3100}, {0x4E00, 0xA000}, {0xAC00, 0xD7A4}, {0x0, 0xD800},  {0xE000, 0x110000}};

// The finalizer of SplitMix64.
uint64_t Draw(uint64_t counter) {
  uint64_t z = counter * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

std::vector<std::string> ReadNormalization(const std::string& path) {
  std::vector<std::string> texts;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream columns(line.substr(0, line.find('#')));
    std::vector<std::string> row;
    for (std::string column; std::getline(columns, column, ';');) {
      std::istringstream points(column);
      std::string text, point;
      while (points >> point) {
        const bool hexadecimal = point.find_first_not_of("0123456789ABCDEF") == std::string::npos;
        if (hexadecimal) AppendUtf8(static_cast<uint32_t>(std::stoul(point, nullptr, 16)), &text);
      }
      row.push_back(text);
    }
    if (row.size() > 5) texts.insert(texts.end(), row.begin(), row.begin() + 5);
  }
  return texts;
}

}  // namespace

std::string RandomText(int i) {
  const uint64_t counter = static_cast<uint64_t>(i) << 16;
  const uint64_t length = Draw(counter) % 48;
  const uint64_t num_ranges = std::size(kRanges);
  const uint64_t fixed = Draw(counter + 1) % (3 * (num_ranges + 1));
  std::string out;
  for (uint64_t j = 0; j < length; ++j) {
    const uint64_t kind =
        fixed <= num_ranges ? fixed : Draw(counter + 2 + 2 * j) % (2 * num_ranges);
    const uint64_t which = Draw(counter + 3 + 2 * j);
    if (kind < num_ranges) {
      const auto [low, high] = kRanges[kind];
      AppendUtf8(low + static_cast<uint32_t>(which % (high - low)), &out);
    } else {
      out += kTelling[which % std::size(kTelling)];
    }
  }
  return out;
}

std::vector<std::string> ReadCorpus(const std::string& name, const std::string& data) {
  std::vector<std::string> texts;
  if (name == "random") {
    for (int i = 0; i < kNumRandom; ++i) texts.push_back(RandomText(i));
  } else if (name == "udhr") {
    std::ifstream file(data + "/text/udhr.jsonl");
    for (std::string line; std::getline(file, line);) {
      texts.push_back(nlohmann::json::parse(line)["text"]);
    }
  } else if (name == "blns") {
    nlohmann::json::parse(std::ifstream(data + "/text/blns.json")).get_to(texts);
  } else if (name == "normalization") {
    texts = ReadNormalization(data + "/text/NormalizationTest.txt");
  }
  return texts;
}

}  // namespace quiver
