// The special tokens around a sequence.
#ifndef QUIVER_ENGINE_TEXT_POST_PROCESSOR_H_
#define QUIVER_ENGINE_TEXT_POST_PROCESSOR_H_

#include <vector>

#include "absl/status/statusor.h"
#include "engine/types.h"
#include "nlohmann/json.hpp"

namespace quiver {

struct SpecialTokens {
  std::vector<TokenId> prefix, suffix;
};

// Section `post_processor`, which may be null: TemplateProcessing, BertProcessing,
// RobertaProcessing, ByteLevel (which adds nothing), or a Sequence of these. UNIMPLEMENTED names
// another.
absl::StatusOr<SpecialTokens> ReadPostProcessor(const nlohmann::json& section);

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_POST_PROCESSOR_H_
