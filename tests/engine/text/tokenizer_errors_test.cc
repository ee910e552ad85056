// A tokenizer.json that cannot be served is refused with a reason, and nothing in one crashes.
#include <fstream>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/text/corpora.h"
#include "tests/engine/text/fixtures.h"

namespace quiver {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

void ExpectError(const absl::Status& status, absl::StatusCode code, const std::string& reason) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
}

struct BadCase {
  friend void PrintTo(const BadCase& bad, std::ostream* out) { *out << bad.name; }

  std::string name;
  const char* fixture;
  std::function<void(json*)> bend;
  absl::StatusCode code;
  std::string reason;
};

class BadTokenizerTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadTokenizerTest, IsRefusedByName) {
  json tokenizer = FixtureJson(GetParam().fixture);
  GetParam().bend(&tokenizer);
  ExpectError(FromJson(tokenizer).status(), GetParam().code, GetParam().reason);
}

constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

json& Split(json* t) { return (*t)["pre_tokenizer"]["pretokenizers"][0]; }
json& ByteLevel(json* t) { return (*t)["pre_tokenizer"]["pretokenizers"][1]; }
json& Model(json* t) { return (*t)["model"]; }

const BadCase kUnsupported[] = {
    {"Unigram", kQwenSmall,
     [](json* t) {
       Model(t) = {{"type", "Unigram"}, {"vocab", json::array({json::array({"<unk>", 0.0})})}};
     },
     kUnimplemented, "model.type \"Unigram\""},
    {"WordLevel", kBertSmall, [](json* t) { Model(t)["type"] = "WordLevel"; }, kUnimplemented,
     "model.type \"WordLevel\""},
    {"ByteFallback", kQwenSmall, [](json* t) { Model(t)["byte_fallback"] = true; }, kUnimplemented,
     "model.byte_fallback"},
    {"Dropout", kQwenSmall, [](json* t) { Model(t)["dropout"] = 0.1; }, kUnimplemented,
     "model.dropout"},
    {"EndOfWordSuffix", kQwenSmall, [](json* t) { Model(t)["end_of_word_suffix"] = "</w>"; },
     kUnimplemented, "model.end_of_word_suffix"},
    {"ContinuingPrefix", kQwenSmall, [](json* t) { Model(t)["continuing_subword_prefix"] = "##"; },
     kUnimplemented, "model.continuing_subword_prefix"},
    {"SplitPattern", kQwenSmall, [](json* t) { Split(t)["pattern"]["Regex"] = "\\p{Han}+"; },
     kUnimplemented, "\\p{Han}+"},
    {"SplitString", kQwenSmall,
     [](json* t) {
       Split(t)["pattern"] = {{"String", " "}};
     },
     kUnimplemented, "{\"String\":\" \"}"},
    {"SplitBehavior", kQwenSmall, [](json* t) { Split(t)["behavior"] = "MergedWithNext"; },
     kUnimplemented, "\"MergedWithNext\""},
    {"TwoSplits", kQwenSmall,
     [](json* t) {
       json& steps = (*t)["pre_tokenizer"]["pretokenizers"];
       steps.insert(steps.begin(), steps[0]);
     },
     kUnimplemented, "\"Split\""},
    {"Digits", kQwenSmall,
     [](json* t) {
       Split(t) = {{"type", "Digits"}};
     },
     kUnimplemented, "\"Digits\""},
    {"RegexTwice", kQwenSmall, [](json* t) { ByteLevel(t)["use_regex"] = true; }, kUnimplemented,
     "use_regex"},
    {"BytePairsWithoutByteLevel", kQwenSmall, [](json* t) { (*t)["pre_tokenizer"] = nullptr; },
     kUnimplemented, "ByteLevel"},
    {"Metaspace", kBertSmall,
     [](json* t) {
       (*t)["pre_tokenizer"] = {{"type", "Metaspace"}};
     },
     kUnimplemented, "\"Metaspace\""},
    {"Nfkc", kQwenSmall, [](json* t) { (*t)["normalizer"]["type"] = "NFKC"; }, kUnimplemented,
     "\"NFKC\""},
    {"NormalizerSequence", kQwenSmall,
     [](json* t) {
       (*t)["normalizer"] = {{"type", "Sequence"},
                             {"normalizers", {{{"type", "NFC"}}, {{"type", "NFC"}}}}};
     },
     kUnimplemented, "normalizer Sequence"},
    {"PostProcessor", kBertSmall, [](json* t) { (*t)["post_processor"]["type"] = "Whatever"; },
     kUnimplemented, "post_processor \"Whatever\""},
    {"TemplateWithoutSequence", kBertSmall,
     [](json* t) { (*t)["post_processor"]["single"].erase(1); }, kUnimplemented,
     "without the sequence A"}};

const BadCase kMalformed[] = {
    {"NoModel", kQwenSmall, [](json* t) { t->erase("model"); }, kInvalid, "\"model\""},
    {"NoMerges", kQwenSmall, [](json* t) { Model(t).erase("merges"); }, kInvalid,
     "model.merges is missing"},
    {"MergeOfThree", kQwenSmall,
     [](json* t) {
       Model(t)["merges"][3] = {"a", "b", "c"};
     },
     kInvalid, "model.merges[3]"},
    {"MergeOfOne", kQwenSmall, [](json* t) { Model(t)["merges"][3] = "ab"; }, kInvalid,
     "model.merges[3]"},
    {"MergeOfNumbers", kQwenSmall,
     [](json* t) {
       Model(t)["merges"][3] = {1, 2};
     },
     kInvalid, "model.merges[3]"},
    {"UnknownMerge", kQwenSmall,
     [](json* t) {
       Model(t)["merges"][3] = {"a", "bogus"};
     },
     kInvalid, "model.merges[3] needs \"bogus\""},
    {"UnknownProduct", kQwenSmall,
     [](json* t) {
       Model(t)["merges"][3] = {"ation", "ation"};
     },
     kInvalid, "model.merges[3] needs \"ationation\""},
    {"MissingByte", kQwenSmall, [](json* t) { Model(t)["vocab"].erase("A"); }, kInvalid,
     "lacks \"A\", the byte 65"},
    {"SameIdTwice", kQwenSmall, [](json* t) { Model(t)["vocab"]["A"] = 5; }, kInvalid,
     "gives the id 5 to two tokens"},
    {"NegativeId", kBertSmall, [](json* t) { Model(t)["vocab"]["the"] = -1; }, kInvalid,
     "the id of \"the\" is not in [0, 2147483646]"},
    {"HugeId", kBertSmall, [](json* t) { Model(t)["vocab"]["the"] = 1ull << 40; }, kInvalid,
     "the id of \"the\" is not in [0, 2147483646]"},
    {"IdOfText", kBertSmall, [](json* t) { Model(t)["vocab"]["the"] = "7"; }, kInvalid,
     "the id of \"the\" is not a whole number"},
    {"UnknownUnknown", kBertSmall, [](json* t) { Model(t)["unk_token"] = "bogus"; }, kInvalid,
     "model.unk_token \"bogus\""},
    {"WrongType", kBertSmall, [](json* t) { (*t)["normalizer"]["lowercase"] = 1; }, kInvalid,
     "normalizer.lowercase is not true or false"},
    {"AddedTokenElsewhere", kQwenSmall, [](json* t) { (*t)["added_tokens"][2]["id"] = 9999; },
     kInvalid, "the id 9999, but the next free id is 1430"},
    {"AddedTokenNotInVocab", kBertSmall, [](json* t) { (*t)["added_tokens"][1]["id"] = 7; },
     kInvalid, "the id 7, but model.vocab has it as 1"},
    {"AddedTokenTwice", kQwenSmall,
     [](json* t) { (*t)["added_tokens"][2] = (*t)["added_tokens"][1]; }, kInvalid,
     "\"<|im_start|>\" twice"},
    {"EmptyAddedToken", kQwenSmall, [](json* t) { (*t)["added_tokens"][1]["content"] = ""; },
     kInvalid, "added_tokens[1].content is empty"},
    {"SpecialTokenOutOfRange", kBertSmall,
     [](json* t) { (*t)["post_processor"]["special_tokens"]["[CLS]"]["ids"] = {99999}; }, kInvalid,
     "the id 99999, but the highest id is 1602"},
    {"SpecialTokenMissing", kBertSmall,
     [](json* t) { (*t)["post_processor"]["special_tokens"].erase("[CLS]"); }, kInvalid,
     "special_tokens[\"[CLS]\"] is missing"}};

std::string CaseName(const ::testing::TestParamInfo<BadCase>& bad) { return bad.param.name; }
INSTANTIATE_TEST_SUITE_P(Unsupported, BadTokenizerTest, ::testing::ValuesIn(kUnsupported),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Malformed, BadTokenizerTest, ::testing::ValuesIn(kMalformed), CaseName);

TEST(TokenizerFileTest, AMissingFileIsNotFoundByItsPath) {
  const auto tokenizer = Tokenizer::Load("/nowhere/tokenizer.json");
  ExpectError(tokenizer.status(), absl::StatusCode::kNotFound, "/nowhere/tokenizer.json");
}

TEST(TokenizerFileTest, AFolderIsNoTokenizer) {
  EXPECT_FALSE(Tokenizer::Load("tests/fixtures").ok());
}

TEST(TokenizerFileTest, CorruptJsonIsNamedByItsByte) {
  ExpectError(FromJsonText("{\"model\": {\"type\": oops").status(), absl::StatusCode::kDataLoss,
              "at byte 19");
  std::stringstream text;
  text << std::ifstream(kBertSmall).rdbuf();
  const std::string whole = text.str();
  for (const size_t size : {size_t{0}, size_t{1}, whole.size() / 2, whole.size() - 3}) {
    EXPECT_EQ(FromJsonText(whole.substr(0, size)).status().code(), absl::StatusCode::kDataLoss);
  }
}

TEST(TokenizerFileTest, JsonOfAnotherKindIsRefused) {
  for (const char* text : {"{}", "[]", "7", "null", "\"text\"", "{\"model\": []}",
                           "{\"architectures\": [\"Qwen3ForCausalLM\"], \"vocab_size\": 3}"}) {
    ExpectError(FromJsonText(text).status(), kInvalid, "model");
  }
}

TEST(TokenizerFileTest, DepthIsBounded) {
  const int depth = 100000;
  const std::string text =
      absl::StrCat("{\"normalizer\":", std::string(depth, '['), std::string(depth, ']'), "}");
  ExpectError(FromJsonText(text).status(), kInvalid, "nests deeper than 64");
}

// Whatever is served after a change may give any ids, but must not crash or give ids out of range.
void Use(const absl::StatusOr<std::unique_ptr<Tokenizer>>& tokenizer) {
  if (!tokenizer.ok()) {
    EXPECT_FALSE(tokenizer.status().message().empty());
    return;
  }
  for (const std::string& text :
       {std::string("The quick brown fox, e\xCC\x81 人生 don't [MASK] <|im_end|>  \n\n 2024!"),
        std::string(300, 'a')}) {
    for (const TokenId id : Ids(**tokenizer, text)) {
      ASSERT_GE(id, 0);
      ASSERT_LT(id, (*tokenizer)->vocabulary_size());
    }
  }
}

// Replaces or removes a random value somewhere in `value`.
void Mutate(json* value, std::mt19937* rng) {
  const auto pick = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(*rng); };
  while (value->is_structured() && !value->empty() && pick(5) != 0) {
    const size_t i = pick(value->size());
    if (value->is_object()) {
      auto entry = value->begin();
      std::advance(entry, static_cast<ptrdiff_t>(i));
      if (pick(12) == 0) {
        value->erase(entry);
        return;
      }
      value = &*entry;
    } else {
      if (pick(12) == 0) {
        value->erase(i);
        return;
      }
      value = &(*value)[i];
    }
  }
  const json replacements[] = {nullptr,       true, 0,   -1,      5,     1ull << 62,
                               1e300,         "",   "A", "[CLS]", "a b", json::array(),
                               json::object()};
  *value = replacements[pick(std::size(replacements))];
}

TEST(TokenizerFuzzTest, ChangedTokenizersNeverCrash) {
  std::mt19937 rng(4);
  for (const char* path : {kQwenSmall, kBertSmall}) {
    const json original = FixtureJson(path);
    for (int i = 0; i < 400; ++i) {
      json tokenizer = original;
      for (size_t changes = 1 + rng() % 3; changes > 0; --changes) Mutate(&tokenizer, &rng);
      Use(FromJson(tokenizer));
    }
  }
}

TEST(TokenizerFuzzTest, ChangedBytesNeverCrash) {
  std::mt19937 rng(5);
  for (const char* path : {kQwenSmall, kBertSmall}) {
    std::stringstream text;
    text << std::ifstream(path).rdbuf();
    for (int i = 0; i < 300; ++i) {
      std::string changed = text.str();
      for (size_t changes = 1 + rng() % 4; changes > 0; --changes) {
        const size_t at = rng() % changed.size();
        switch (rng() % 3) {
          case 0:
            changed[at] = static_cast<char>(rng());
            break;
          case 1:
            changed.erase(at, 1 + rng() % 40);
            break;
          default:
            changed.insert(at, 1, "{}[]\",:0-\\u"[rng() % 11]);
        }
      }
      Use(FromJsonText(changed));
    }
  }
}

TEST(TokenizerFuzzTest, RandomBytesAreEitherTokenizedOrRefused) {
  std::mt19937 rng(6);
  for (const char* path : {kQwenSmall, kBertSmall}) {
    const auto tokenizer = LoadFixture(path);
    for (int i = 0; i < 20000; ++i) {
      std::string text(rng() % 40, '\0');
      // Half of them nearly UTF-8.
      if (i % 2 == 0) {
        for (char& c : text) c = static_cast<char>(rng());
      } else {
        text = RandomText(i);
        if (!text.empty()) text[rng() % text.size()] = static_cast<char>(rng());
      }
      std::vector<TokenId> ids;
      const absl::Status status = tokenizer->Encode(text, &ids);
      EXPECT_EQ(status.ok(), FindInvalidUtf8(text) < 0);
      for (const TokenId id : ids) ASSERT_LT(id, tokenizer->vocabulary_size());
    }
  }
}

}  // namespace
}  // namespace quiver
