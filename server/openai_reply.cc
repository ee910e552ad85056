#include "server/openai_reply.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/field_error.h"
#include "engine/schedule/scheduler.h"
#include "nlohmann/json.hpp"
#include "server/embed_json.h"

namespace quiver {
namespace {

// Enough for any float in its shortest form, and ".0".
constexpr size_t kFloatChars = 24;
// A float's usual length in a reply, with its comma.
constexpr size_t kUsualFloatChars = 13;

constexpr char kForeignIds[] =
    " (ids must come from the model's own tokenizer; send texts if the client's is another, in "
    "LangChain with check_embedding_ctx_length=False)";

// A server that loads or drains does not know for how long; by then another may have the address.
constexpr absl::Duration kUnavailableDelay = absl::Seconds(1);

int HttpStatus(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    // The caller has gone, so that nobody reads it but the log.
    case absl::StatusCode::kCancelled:
      return 499;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

absl::string_view ErrorCode(int status) {
  switch (status) {
    case 404:
      return "model_not_found";
    case 422:
      return "invalid_token_ids";
    case 429:
      return "rate_limit_exceeded";
    default:
      return "";
  }
}

HttpResponse Error(int http_status, const absl::Status& status, absl::string_view param,
                   absl::string_view hint) {
  HttpResponse response =
      HttpError(http_status, absl::StrCat(param, param.empty() ? "" : ": ", status.message(), hint),
                param, ErrorCode(http_status));
  response.headers = RetryHeaders(status);
  return response;
}

HttpResponse ItemError(const absl::Status& status, size_t index, const OpenAiForm& form) {
  const std::string field = ErrorField(status);
  if (field.empty()) return OpenAiError(status);
  const std::string param = form.is_list ? absl::StrCat("input[", index, "]") : "input";
  if (field == "token_ids") return Error(422, status, param, kForeignIds);
  return Error(HttpStatus(status.code()), status, param, "");
}

}  // namespace

HttpHeaders SpaceHeaders(const RequestPlan& plan) {
  HttpHeaders headers = {{kSpaceHeader, plan.space_fingerprint}};
  if (!plan.prompt_fingerprint.empty()) {
    headers.emplace_back(kPromptHeader, plan.prompt_fingerprint);
  }
  return headers;
}

HttpHeaders RetryHeaders(const absl::Status& status) {
  absl::Duration delay = RetryDelay(status);
  if (absl::IsUnavailable(status)) delay = std::max(delay, kUnavailableDelay);
  if (delay <= absl::ZeroDuration()) return {};
  const int64_t ms = std::max<int64_t>(1, absl::ToInt64Milliseconds(delay));
  return {{"Retry-After", absl::StrCat((ms + 999) / 1000)}, {"retry-after-ms", absl::StrCat(ms)}};
}

HttpResponse OpenAiError(const absl::Status& status) {
  std::string field = ErrorField(status);
  if (field == "truncation") field = "truncate";
  if (const size_t mark = field.find(kForeignIdMark); mark != std::string::npos) {
    // To OpenAI's clients the ids are the input itself.
    field.replace(mark, sizeof(kForeignIdMark) - 1, "[");
    return Error(422, status, field, kForeignIds);
  }
  if (absl::IsNotFound(status) && field.empty()) {
    return HttpError(404, status.message(), "model", ErrorCode(404));
  }
  return Error(HttpStatus(status.code()), status, field, "");
}

void AppendFloats(absl::string_view data, std::string* out) {
  static_assert(sizeof(float) == 4);
  out->push_back('[');
  for (size_t at = 0; at + sizeof(float) <= data.size(); at += sizeof(float)) {
    float value;
    std::memcpy(&value, data.data() + at, sizeof(value));
    char text[kFloatChars];
    char* end = std::to_chars(text, text + sizeof(text), value).ptr;
    // A reader may take "-0" for the integer, which has no sign.
    if (value == std::trunc(value) && std::find(text, end, '.') == end &&
        std::find(text, end, 'e') == end) {
      *end++ = '.';
      *end++ = '0';
    }
    if (at > 0) out->push_back(',');
    out->append(text, end);
  }
  out->push_back(']');
}

HttpResponse OpenAiReply(EmbedReply reply, const OpenAiForm& form) {
  if (const auto failed = reply.failed_input; failed.has_value()) {
    return ItemError(reply.results[*failed].status(), *failed, form);
  }
  HttpResponse response;
  std::string& body = response.body;
  const auto dimensions = static_cast<size_t>(reply.plan->output.dimensions);
  body.reserve(256 + reply.results.size() * (64 + dimensions * kUsualFloatChars));
  body = R"({"object":"list","data":[)";
  for (size_t i = 0; i < reply.results.size(); ++i) {
    absl::StrAppend(&body, i == 0 ? "" : ",", R"({"object":"embedding","index":)", i,
                    R"(,"embedding":)");
    const std::string& data = reply.results[i]->vector.data;
    if (form.base64) {
      absl::StrAppend(&body, "\"", absl::Base64Escape(data), "\"");
    } else {
      AppendFloats(data, &body);
    }
    body.push_back('}');
  }
  absl::StrAppend(&body, R"(],"model":)", nlohmann::json(form.model).dump(),
                  R"(,"usage":{"prompt_tokens":)", reply.report.tokens, R"(,"total_tokens":)",
                  reply.report.tokens, "}}");
  response.headers = SpaceHeaders(*reply.plan);
  return response;
}

}  // namespace quiver
