#ifndef QUIVER_ENGINE_DIGEST_H_
#define QUIVER_ENGINE_DIGEST_H_

#include <string>

#include "absl/strings/string_view.h"

namespace quiver {

// The 128 bits of XXH3 over `bytes` as 32 hexadecimal digits.
std::string HexDigest(absl::string_view bytes);

}  // namespace quiver

#endif  // QUIVER_ENGINE_DIGEST_H_
