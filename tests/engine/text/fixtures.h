// The cut tokenizers of tests/fixtures/tokenizers, and ways to bend them.
#ifndef QUIVER_TESTS_ENGINE_TEXT_FIXTURES_H_
#define QUIVER_TESTS_ENGINE_TEXT_FIXTURES_H_

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "engine/text/pipeline.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_json.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace quiver {

inline constexpr char kQwenSmall[] = "tests/fixtures/tokenizers/qwen-small/tokenizer.json";
inline constexpr char kBertSmall[] = "tests/fixtures/tokenizers/bert-small/tokenizer.json";

inline std::unique_ptr<Tokenizer> LoadFixture(const std::string& path) {
  auto tokenizer = Tokenizer::Load(path);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

inline nlohmann::json FixtureJson(const std::string& path) {
  return nlohmann::json::parse(std::ifstream(path));
}

inline absl::StatusOr<std::unique_ptr<Tokenizer>> FromJsonText(absl::string_view text) {
  auto json = ParseTokenizerJson(text);
  if (!json.ok()) return json.status();
  return PipelineTokenizer::Create(**json);
}

inline absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(const nlohmann::json& json) {
  return FromJsonText(json.dump());
}

// Ids without special tokens.
inline std::vector<TokenId> Ids(const Tokenizer& tokenizer, absl::string_view text) {
  std::vector<TokenId> ids;
  const absl::Status status = tokenizer.Encode(text, &ids);
  EXPECT_TRUE(status.ok()) << status;
  return ids;
}

}  // namespace quiver

#endif  // QUIVER_TESTS_ENGINE_TEXT_FIXTURES_H_
