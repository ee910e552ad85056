// The shortcuts of BpeModel (whole pieces, whole characters, two ways to merge) against the
// definition.
#include "engine/text/bpe_model.h"

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/text/byte_level.h"
#include "engine/text/tokenizer_json.h"
#include "engine/text/unicode.h"
#include "gtest/gtest.h"
#include "tests/engine/text/fixtures.h"

namespace quiver {
namespace {

// Byte-pair encoding as it is defined: the tokens are spellings, each round merges the leftmost
// pair of lowest rank.
class Definition {
 public:
  explicit Definition(const nlohmann::json& model) : model_(model) {
    int rank = 0;
    for (const auto& merge : model["merges"]) ranks_[{merge[0], merge[1]}] = rank++;
  }

  std::vector<TokenId> Encode(absl::string_view piece) const {
    std::vector<std::string> tokens;
    for (const char c : piece) tokens.push_back(ByteLevelSpelling(static_cast<unsigned char>(c)));
    while (true) {
      size_t best = 0;
      int best_rank = -1;
      for (size_t i = 0; i + 1 < tokens.size(); ++i) {
        const auto found = ranks_.find({tokens[i], tokens[i + 1]});
        if (found != ranks_.end() && (best_rank < 0 || found->second < best_rank)) {
          best = i;
          best_rank = found->second;
        }
      }
      if (best_rank < 0) break;
      tokens[best] += tokens[best + 1];
      tokens.erase(tokens.begin() + static_cast<ptrdiff_t>(best) + 1);
    }
    std::vector<TokenId> ids;
    for (const std::string& token : tokens) ids.push_back(model_["vocab"][token]);
    return ids;
  }

 private:
  const nlohmann::json& model_;
  std::map<std::pair<std::string, std::string>, int> ranks_;
};

std::unique_ptr<BpeModel> Model(const nlohmann::json& tokenizer) {
  auto parsed = ParseTokenizerJson(tokenizer.dump());
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  auto model = BpeModel::Create(**parsed);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

// Pieces of the vocabulary's own tokens and of characters that share bytes with them.
std::string RandomPiece(const std::vector<std::string>& spellings, std::mt19937* rng) {
  const auto pick = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(*rng); };
  const size_t target = pick(4) == 0 ? 100 + pick(200) : 1 + pick(24);
  std::string piece, bytes;
  while (piece.size() < target) {
    switch (pick(5)) {
      case 0:
        AppendUtf8(static_cast<uint32_t>(0x80 + pick(0x700)), &piece);
        break;
      case 1:
        AppendUtf8(static_cast<uint32_t>(0x3040 + pick(0x6000)), &piece);
        break;
      case 2:
      case 3:
        // Beyond ASCII from the vocabulary, so that there are merges for it.
        do {
          DecodeByteLevel(spellings[pick(spellings.size())], &bytes);
        } while (static_cast<unsigned char>(bytes[0]) < 0x80 || FindInvalidUtf8(bytes) >= 0);
        piece += bytes;
        break;
      default:
        // The vocabulary's tokens may end within a character; a piece of text does not.
        DecodeByteLevel(spellings[pick(spellings.size())], &bytes);
        if (FindInvalidUtf8(bytes) < 0) piece += bytes;
    }
  }
  return piece;
}

void ExpectAsDefined(const nlohmann::json& tokenizer, int pieces, std::mt19937* rng) {
  const auto model = Model(tokenizer);
  const Definition definition(tokenizer["model"]);
  std::vector<std::string> spellings;
  for (const auto& [token, id] : tokenizer["model"]["vocab"].items()) spellings.push_back(token);
  for (int i = 0; i < pieces; ++i) {
    const std::string piece = RandomPiece(spellings, rng);
    std::vector<TokenId> ids;
    model->Encode(piece, &ids);
    ASSERT_EQ(ids, definition.Encode(piece)) << piece;
  }
}

TEST(BpeModelTest, MergesAsDefined) {
  std::mt19937 rng(1);
  ExpectAsDefined(FixtureJson(kQwenSmall), 2000, &rng);
}

// In a trained vocabulary the parts of a merge have lower ranks than the merge; nothing may hang on
// it.
TEST(BpeModelTest, MergesAsDefinedWhateverTheOrderOfTheMerges) {
  std::mt19937 rng(2);
  for (int round = 0; round < 20; ++round) {
    nlohmann::json tokenizer = FixtureJson(kQwenSmall);
    nlohmann::json& merges = tokenizer["model"]["merges"];
    for (size_t i = merges.size() - 1; i > 0; --i) std::swap(merges[i], merges[rng() % (i + 1)]);
    ExpectAsDefined(tokenizer, 100, &rng);
  }
}

// Merges that take a part of one character and the next one, as trained vocabularies have some.
TEST(BpeModelTest, MergesAsDefinedAcrossTheBordersOfCharacters) {
  std::mt19937 rng(3);
  for (int round = 0; round < 30; ++round) {
    nlohmann::json tokenizer = FixtureJson(kQwenSmall);
    nlohmann::json& model = tokenizer["model"];
    std::vector<std::string> spellings, characters;
    std::string bytes;
    for (const auto& [token, id] : model["vocab"].items()) {
      spellings.push_back(token);
      DecodeByteLevel(token, &bytes);
      if (bytes.size() == 3 && FindInvalidUtf8(bytes) < 0 && (bytes[0] & 0x80)) {
        characters.push_back(bytes);
      }
    }
    ASSERT_GT(characters.size(), 100u);
    TokenId next = static_cast<TokenId>(model["vocab"].size());
    nlohmann::json::array_t merges = model["merges"];
    const auto add = [&](const std::string& left, const std::string& right) {
      if (!model["vocab"].contains(left + right)) model["vocab"][left + right] = next++;
      const auto place = static_cast<ptrdiff_t>(rng() % merges.size());
      merges.insert(merges.begin() + place, nlohmann::json::array({left, right}));
    };
    for (int i = 0; i < 100; ++i) {
      const std::string& character = characters[rng() % characters.size()];
      std::string spelled[3];
      for (int b = 0; b < 3; ++b) {
        spelled[b] = ByteLevelSpelling(static_cast<unsigned char>(character[b]));
      }
      const std::string& other = spellings[rng() % spellings.size()];
      const std::string lead = ByteLevelSpelling(static_cast<unsigned char>(0xE3 + rng() % 7));
      const std::string ascii(1, static_cast<char>('a' + rng() % 26));
      add(spelled[2], i % 2 == 0 ? lead : ascii);
      add(other, spelled[0]);
      add(other, spelled[0] + spelled[1]);
      // The character's end is a token on the way to the whole one.
      add(spelled[1], spelled[2]);
      add(spelled[0], spelled[1] + spelled[2]);
      add(spelled[1] + spelled[2], i % 3 == 0 ? lead : i % 3 == 1 ? ascii : other);
      // Their parts have to be known.
      for (const std::string& part : {spelled[0] + spelled[1], spelled[1] + spelled[2]}) {
        if (!model["vocab"].contains(part)) model["vocab"][part] = next++;
      }
    }
    model["merges"] = merges;
    ExpectAsDefined(tokenizer, 200, &rng);
  }
}

}  // namespace
}  // namespace quiver
