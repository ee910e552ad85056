#include "server/web_routes.h"

#include <utility>

#include "nlohmann/json.hpp"
#include "server/web/web_files.h"

namespace quiver {
namespace {

using nlohmann::ordered_json;

// The page asks nobody but the server that it came from, and nobody frames it.
constexpr char kPagePolicy[] =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

HttpResponse Page() {
  HttpResponse response;
  response.content_type = "text/html; charset=utf-8";
  response.body = kIndexHtml;
  response.headers = {{"Content-Security-Policy", kPagePolicy},
                      {"X-Content-Type-Options", "nosniff"},
                      {"Referrer-Policy", "no-referrer"},
                      {"Cache-Control", "no-cache"}};
  return response;
}

// What a model says of its requests.
void AddModelLimits(const ModelInfo& info, ordered_json* schemas) {
  ordered_json& dimensions = (*schemas)["Dimensions"];
  dimensions["minimum"] = info.config.min_dimensions;
  dimensions["maximum"] = info.config.hidden_size;
  ordered_json& ids = (*schemas)["TokenIds"];
  ids["items"]["maximum"] = info.vocabulary_size - 1;
  ids["maxItems"] = info.max_input_tokens;
  ordered_json names = ordered_json::array();
  for (const auto& [name, text] : info.config.prompts) names.push_back(name);
  names.push_back(nullptr);
  (*schemas)["PromptName"]["enum"] = std::move(names);
}

}  // namespace

void AddWebRoutes(const std::string& server_version, int max_items_per_request,
                  const ServedModel* model, HttpRouter* router) {
  router->Add("GET", "/",
              {0, [](HttpRequest, HttpResponder responder) { responder.Send(Page()); }});

  ordered_json description = ordered_json::parse(kOpenApiJson);
  description["info"]["version"] = server_version;
  for (ordered_json& kind : description["components"]["schemas"]["Input"]["anyOf"]) {
    if (kind.contains("items")) kind["maxItems"] = max_items_per_request;
  }
  router->Add(
      "GET", "/openapi.json",
      {0, [=, description = std::move(description)](HttpRequest, HttpResponder responder) {
         ordered_json now = description;
         if (const auto embedder = model->Find(""); embedder.ok()) {
           AddModelLimits((*embedder)->info(), &now["components"]["schemas"]);
         }
         responder.Send(
             {.body = now.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n"});
       }});
}

}  // namespace quiver
