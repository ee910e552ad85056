#include "server/http_router.h"

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace quiver {
namespace {

// As OpenAI's API names kinds of errors.
const char* ErrorType(int status) {
  if (status >= 500) return "server_error";
  if (status == 429) return "rate_limit_error";
  return status == 401 ? "authentication_error" : "invalid_request_error";
}

}  // namespace

HttpResponse HttpError(int status, absl::string_view message, absl::string_view param,
                       absl::string_view code) {
  const auto or_null = [](absl::string_view text) {
    return text.empty() ? nlohmann::json() : nlohmann::json(std::string(text));
  };
  const nlohmann::json body = {{"error",
                                {{"message", std::string(message)},
                                 {"type", ErrorType(status)},
                                 {"param", or_null(param)},
                                 {"code", or_null(code)}}}};
  HttpResponse response;
  response.status = status;
  response.body = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  return response;
}

const HttpRouter::Methods* HttpRouter::FindPath(absl::string_view path) const {
  if (const auto whole = routes_.find(path); whole != routes_.end()) return &whole->second;
  for (size_t slash = path.rfind('/'); slash != absl::string_view::npos && slash + 1 < path.size();
       slash = slash == 0 ? absl::string_view::npos : path.rfind('/', slash - 1)) {
    const auto below = routes_.find(absl::StrCat(path.substr(0, slash + 1), "*"));
    if (below != routes_.end()) return &below->second;
  }
  return nullptr;
}

HttpRouter::Match HttpRouter::Find(absl::string_view method, absl::string_view path) const {
  const Methods* methods = FindPath(path);
  if (methods == nullptr) return {};
  const std::string wanted(method == "HEAD" ? "GET" : method);
  if (const auto found = methods->find(wanted); found != methods->end()) {
    return {&found->second, ""};
  }
  Match match;
  for (const auto& [known, route] : *methods) {
    absl::StrAppend(&match.allow, match.allow.empty() ? "" : ", ", known,
                    known == "GET" ? ", HEAD" : "");
  }
  return match;
}

}  // namespace quiver
