// What POST /v1/embeddings answers, in the form of OpenAI's API.
#ifndef QUIVER_SERVER_OPENAI_REPLY_H_
#define QUIVER_SERVER_OPENAI_REPLY_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/embed_call.h"
#include "server/http_types.h"

namespace quiver {

// Headers of a reply: the fingerprints of embed.proto's VectorSpace.
inline constexpr char kSpaceHeader[] = "quiver-vector-space";
inline constexpr char kPromptHeader[] = "quiver-prompt-fingerprint";

struct OpenAiForm {
  // The name that the reply gives.
  std::string model;
  bool base64 = false;
  // Whether an error names the input's index.
  bool is_list = false;
};

// The answer to a request that gave `reply`, whose vectors are float32. The form has no place for
// an input's own error: one that failed fails the request, the first of them.
HttpResponse OpenAiReply(EmbedReply reply, const OpenAiForm& form);

// INVALID_ARGUMENT is 400, or 422 for ids that the model does not have; NOT_FOUND 404,
// RESOURCE_EXHAUSTED 429, UNAVAILABLE 503, DEADLINE_EXCEEDED 504, anything else 500. A delay to try
// again after becomes Retry-After (seconds) and retry-after-ms.
HttpResponse OpenAiError(const absl::Status& status);

// What both forms say in headers: the vector space, and when to try again after `status`.
HttpHeaders SpaceHeaders(const RequestPlan& plan);
HttpHeaders RetryHeaders(const absl::Status& status);

// Appends the numbers of a packed little-endian float32 vector as a JSON array, each with the
// fewest digits that give its bits back.
void AppendFloats(absl::string_view data, std::string* out);

}  // namespace quiver

#endif  // QUIVER_SERVER_OPENAI_REPLY_H_
