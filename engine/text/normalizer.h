// What is done to a text before it is split.
#ifndef QUIVER_ENGINE_TEXT_NORMALIZER_H_
#define QUIVER_ENGINE_TEXT_NORMALIZER_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace quiver {

// Immutable and thread-safe.
class Normalizer {
 public:
  enum class Kind { kNone, kNfc, kBert };
  // Of BertNormalizer.
  struct BertOptions {
    // Drops control characters and U+FFFD, makes every white space a space.
    bool clean_text = true;
    // Puts spaces around each ideograph.
    bool chinese_chars = true;
    // Decomposes and drops the marks.
    bool strip_accents = true;
    bool lowercase = true;
  };

  // Section `normalizer`, which may be null. UNIMPLEMENTED names a type that is not supported.
  static absl::StatusOr<Normalizer> Create(const nlohmann::json& section);

  // The normal form of valid UTF-8: `text` itself if nothing changes, else a view of *scratch.
  absl::string_view Normalize(absl::string_view text, std::string* scratch) const;

  Kind kind() const { return kind_; }
  const BertOptions& bert_options() const { return bert_; }

 private:
  void NormalizeBert(absl::string_view text, std::string* out) const;

  Kind kind_ = Kind::kNone;
  BertOptions bert_;
};

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_NORMALIZER_H_
