// Requests for embeddings as JSON.
#ifndef QUIVER_SERVER_EMBED_JSON_H_
#define QUIVER_SERVER_EMBED_JSON_H_

#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/embedder.h"
#include "engine/types.h"

namespace quiver {

struct EmbedJson {
  // Empty for whichever model is served.
  std::string model;
  std::vector<std::variant<std::string, std::vector<TokenId>>> inputs;
  // Whether `inputs` came as an array, so that an error must say which of them it is about.
  bool is_list = false;
  // Vectors as base64 of little-endian float32 rather than as arrays of numbers.
  bool base64 = false;
  RequestOptions options;
  Lane lane = Lane::kInteractive;
};

// In the path of an error about an id that no model has: between the input's and the id's index.
inline constexpr char kForeignIdMark[] = ".token_ids[";

// Reads, in any order:
//
//   input            a string, token ids, or an array of either (not both); at least one, at most
//                    `max_items`
//   model            a string
//   encoding_format  "float" or "base64"
//   dimensions       an integer
//   user             a string, ignored
//   prompt_name, instruction   strings
//   truncate         true or "right" keeps the beginning, "left" the end, false or "none" refuses
//   truncation_direction   "left" or "right", for truncate: true
//   normalize        true or false
//   priority         "interactive" or "bulk"
//
// `input_key` is what input is called there. Null is as good as nothing, but for input. Other keys
// are ignored. INVALID_ARGUMENT, with the field's path if there is one ("input[3]"), for what is
// not JSON, not UTF-8, nested deeper than 64, has a key twice, or has a value of another type.
absl::StatusOr<EmbedJson> ParseEmbedJson(absl::string_view body, absl::string_view input_key,
                                         int max_items);

}  // namespace quiver

#endif  // QUIVER_SERVER_EMBED_JSON_H_
