#include "server/http_router.h"

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace quiver {

HttpResponse HttpError(int status, absl::string_view message) {
  const nlohmann::json body = {{"error", {{"code", status}, {"message", std::string(message)}}}};
  HttpResponse response;
  response.status = status;
  response.body = body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  return response;
}

HttpRouter::Match HttpRouter::Find(absl::string_view method, absl::string_view path) const {
  const auto methods = routes_.find(path);
  if (methods == routes_.end()) return {};
  const std::string wanted(method == "HEAD" ? "GET" : method);
  if (const auto found = methods->second.find(wanted); found != methods->second.end()) {
    return {&found->second, ""};
  }
  Match match;
  for (const auto& [known, route] : methods->second) {
    absl::StrAppend(&match.allow, match.allow.empty() ? "" : ", ", known,
                    known == "GET" ? ", HEAD" : "");
  }
  return match;
}

}  // namespace quiver
