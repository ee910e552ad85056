#ifndef QUIVER_SERVER_JSON_STRING_H_
#define QUIVER_SERVER_JSON_STRING_H_

#include <string>

#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace quiver {

// As a JSON string, quotes included, in ASCII; bytes that are not UTF-8 become U+FFFD.
inline std::string JsonString(absl::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

}  // namespace quiver

#endif  // QUIVER_SERVER_JSON_STRING_H_
