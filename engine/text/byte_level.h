// The alphabet in which byte-level tokenizers spell bytes: printable Latin-1 stands for itself, the
// other bytes are moved to U+0100 and up, in order.
#ifndef QUIVER_ENGINE_TEXT_BYTE_LEVEL_H_
#define QUIVER_ENGINE_TEXT_BYTE_LEVEL_H_

#include <string>

#include "absl/strings/string_view.h"

namespace quiver {

// The bytes that `token`, valid UTF-8, spells. False if a character of it is not in the alphabet.
bool DecodeByteLevel(absl::string_view token, std::string* bytes);

// The spelling of `byte`.
std::string ByteLevelSpelling(unsigned char byte);

}  // namespace quiver

#endif  // QUIVER_ENGINE_TEXT_BYTE_LEVEL_H_
