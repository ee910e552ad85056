#include "server/openai_routes.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "nlohmann/json.hpp"
#include "server/embed_json.h"
#include "server/openai_reply.h"

namespace quiver {
namespace {

constexpr char kModelsPath[] = "/v1/models/";

nlohmann::json ModelJson(const std::string& name) {
  return {{"id", name}, {"object", "model"}, {"created", 0}, {"owned_by", "quiver"}};
}

std::string Dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void ListModels(const ServedModel& model, HttpResponder responder) {
  const absl::StatusOr<Embedder*> embedder = model.Find("");
  if (!embedder.ok()) return responder.Send(OpenAiError(embedder.status()));
  nlohmann::json data = nlohmann::json::array({ModelJson((*embedder)->info().name)});
  for (const std::string& alias : model.aliases()) data.push_back(ModelJson(alias));
  responder.Send({.body = Dump({{"object", "list"}, {"data", std::move(data)}})});
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Escapes that are none stay as they are: no name will match.
std::string Unescape(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && HexValue(text[i + 1]) >= 0 &&
        HexValue(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(HexValue(text[i + 1]) * 16 + HexValue(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

void ShowModel(const ServedModel& model, absl::string_view path, HttpResponder responder) {
  const std::string name = Unescape(absl::StripPrefix(path, kModelsPath));
  const absl::StatusOr<Embedder*> embedder = model.Find(name);
  if (!embedder.ok()) return responder.Send(OpenAiError(embedder.status()));
  responder.Send({.body = Dump(ModelJson(name))});
}

HttpResponse Reply(EmbedReply reply, const EmbedJson& request, const std::string& model) {
  return OpenAiReply(std::move(reply),
                     {.model = model, .base64 = request.base64, .is_list = request.is_list});
}

HttpResponse Error(const absl::Status& status, bool) { return OpenAiError(status); }

}  // namespace

void AddOpenAiRoutes(const EmbedRouteOptions& options, const ServedModel* model, EmbedCalls* calls,
                     RequestObserver* observer, HttpRouter* router) {
  const EmbedForm form = {
      .route = "/v1/embeddings", .input_key = "input", .reply = Reply, .error = Error};
  AddEmbedRoute(form, options, model, calls, observer, router);
  router->Add(
      "GET", "/v1/models",
      {0, [=](HttpRequest, HttpResponder responder) { ListModels(*model, std::move(responder)); },
       /*needs_key=*/true});
  router->Add("GET", absl::StrCat(kModelsPath, "*"),
              {0,
               [=](HttpRequest request, HttpResponder responder) {
                 ShowModel(*model, request.path, std::move(responder));
               },
               /*needs_key=*/true});
}

}  // namespace quiver
