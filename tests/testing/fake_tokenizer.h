#ifndef QUIVER_TESTS_TESTING_FAKE_TOKENIZER_H_
#define QUIVER_TESTS_TESTING_FAKE_TOKENIZER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/text/tokenizer.h"

namespace quiver {

// One id for each byte of a text, between a first and a last special token.
class FakeTokenizer : public Tokenizer {
 public:
  static constexpr TokenId kFirst = 1;
  static constexpr TokenId kLast = 2;
  static constexpr TokenId kBytes = 3;
  static constexpr int kVocabularySize = kBytes + 256;

  absl::Status Encode(absl::string_view text, std::vector<TokenId>* ids) const override {
    if (const int64_t offset = FindInvalidUtf8(text); offset >= 0) {
      return absl::InvalidArgumentError(absl::StrCat("invalid UTF-8 at byte ", offset));
    }
    for (char c : text) ids->push_back(kBytes + static_cast<unsigned char>(c));
    return absl::OkStatus();
  }
  const std::vector<TokenId>& prefix_ids() const override { return first_; }
  const std::vector<TokenId>& suffix_ids() const override { return last_; }
  int vocabulary_size() const override { return kVocabularySize; }
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  const std::vector<TokenId> first_ = {kFirst};
  const std::vector<TokenId> last_ = {kLast};
  const std::string fingerprint_ = "fake";
};

}  // namespace quiver

#endif  // QUIVER_TESTS_TESTING_FAKE_TOKENIZER_H_
